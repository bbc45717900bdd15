"""Language models: the protocol, budgets, tapes, agents, a simulated model and one real client."""
