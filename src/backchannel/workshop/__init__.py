"""What keeps the house in order: computed status, generated lists, skeletons, published claims."""
