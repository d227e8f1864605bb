"""`repair`: restores a damaged journal from evidence, with gaps for lost records."""
