"""Continual: learning on and on without forgetting."""
