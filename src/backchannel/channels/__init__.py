"""Channels: what of the task's answer gets through, when and how true."""
