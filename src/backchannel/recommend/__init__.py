"""Recommend: feedback from users of a ranking."""
