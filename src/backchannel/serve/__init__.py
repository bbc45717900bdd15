"""A policy as a service: decide, hear, learn, over a durable ledger."""
