"""The small models of the atlas: built from scratch, then loaded by the same code as any hub model."""
