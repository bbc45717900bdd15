"""Decide: learn policies from a log, say honestly what each would earn, and let one act."""
