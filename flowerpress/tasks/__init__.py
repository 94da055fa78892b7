"""Tasks: what a client trains, a function or a torch model."""
