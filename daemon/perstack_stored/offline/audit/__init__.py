"""`audit`: reads a tree that any program wrote, and names what is damaged, misplaced or probably lost."""
