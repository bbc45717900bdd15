"""What `backchannel align` does: read feedback, turn it into tokens, tune a model on it, and say what came of it."""
