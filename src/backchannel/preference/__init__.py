"""Preference: tuning generative models on comparisons, ratings and critiques."""
