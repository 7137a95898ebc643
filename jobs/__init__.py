"""One short entry for each `ray job submit`: parse, call the package, print. Run from a checkout.

Key property: a job's exit code is its command's, so Ray reports what failed as FAILED: 2 for a request that cannot be run as
given, 1 for a failure, with one line that says why, and 143 where it was stopped. ``runtime_env.yaml`` is what all run in.
"""
