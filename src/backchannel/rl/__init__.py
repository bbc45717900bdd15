"""Reinforcement learning: feedback on sequences of decisions."""
