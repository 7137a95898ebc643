"""One adapter: the DoRA layer, the PEFT directory on disk, and the lineage of its versions. No Ray."""
