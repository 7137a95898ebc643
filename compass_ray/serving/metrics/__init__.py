"""What operators see of the service: counts and times, as Prometheus text and as the status that the page reads.

Key property: one table of metrics, whoever exports them. It decides nothing.
"""
