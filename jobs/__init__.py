"""One short entry for each `ray job submit`: parse, call the package, print. Run from a checkout."""
