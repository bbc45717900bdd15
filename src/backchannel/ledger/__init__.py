"""Ledger: feedback logs and what they are worth."""
