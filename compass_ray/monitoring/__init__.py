"""The traffic monitor: record prompts and feedback, check windows for drift, and store what the retention setting allows.

The state is a fold over an event log, so a restarted monitor continues where the last one stopped. Modules, in reading
order: `forwarder` (ingress to monitor), `monitor` (the entry point), `observations` (the messages), `ingest`,
`cluster_assigner`, `language_monitor` (the state of a language), `processor`, `drift_check`, `references`,
`reassignment`, `traffic_log`, `journal`, `window_store`, `reply_quality`, `feedback`, `corrections`, `retention`,
`steady_clock`, `retained_traffic`, `audit_records`. No Ray: the actor is `serving.monitor_actor`. COMPASS, section 3.3.2.
"""
