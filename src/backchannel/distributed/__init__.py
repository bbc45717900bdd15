"""Distributed: training apart, over slow links."""
