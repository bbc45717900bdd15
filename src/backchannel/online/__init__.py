"""Online: deciding in rounds, with whatever feedback comes."""
