"""Tasks: what answers."""
