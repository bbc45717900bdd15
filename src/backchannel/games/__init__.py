"""Games: methods for players who meet again."""
