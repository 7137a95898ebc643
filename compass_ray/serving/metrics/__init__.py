"""Service metrics: counts and times, as Prometheus text and as the status of the dashboard."""
