"""`check`: compares journal, index and tree of a base. It changes nothing in the base."""
