"""One short entry for each `ray job submit`: parse, call the pipeline, print. Run from a checkout, not installed."""
