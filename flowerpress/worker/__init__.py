"""What every client half stands on: the ClientApp, the worker, its memory and where it is kept."""
