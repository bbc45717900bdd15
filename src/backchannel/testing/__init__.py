"""Testing: the battery, for this library's methods and for one's own."""
