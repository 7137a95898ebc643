"""The control loop of a service that updates itself: observe each language, decide, and execute.

It answers a drift alarm with an update, evaluates the new version, promotes it or rolls it back. All state is in the run
directory, so a restarted controller continues. Modules, in reading order: `reconcile` (one cycle), `observe` (read the
run), `state` (what is observed and persisted), `policy` (the pure function `decide`), `actions`, `executor`,
`update_tasks` (updates as Ray tasks), `canary_eval` (test questions), `actor` (the Ray actor). Not part of the paper.
"""
