"""Parts: pieces that two or more methods share."""
