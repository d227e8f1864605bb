"""`repair`: makes a damaged journal whole again, with gaps for what is lost."""
