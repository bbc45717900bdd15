"""Language: agents that refine from feedback in words."""
