"""Small models of the atlas: built from scratch, loaded by the same code as any hub model."""
