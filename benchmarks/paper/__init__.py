"""Quality benchmarks: the claims of the paper at the size of the atlas."""
