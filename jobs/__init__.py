"""One short entry point for each `ray job submit`: parse, call the package, print. Run from a checkout.

Key property: a job's exit code is that of its command, so Ray reports an error as FAILED. 2 is an invalid request, 1 a
failure with one line that gives the reason, 143 a stopped job. All jobs use ``runtime_env.yaml``.
"""
