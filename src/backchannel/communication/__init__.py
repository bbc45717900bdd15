"""Communication: learning to signal and to understand."""
