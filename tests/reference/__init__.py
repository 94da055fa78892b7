"""Plain float64 references, written from the papers: no package code, no cleverness."""
