"""`audit`: reads a tree that any program wrote; reports damaged, misplaced and probably lost files."""
