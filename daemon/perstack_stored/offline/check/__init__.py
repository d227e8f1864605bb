"""`check`: journal, index and tree of a base are compared. Nothing in the base changes."""
