"""COMPASS on Ray: train, serve, monitor and update one adapter per language.

Importing the package loads neither Ray nor torch. It makes control characters in the package's log records visible.
"""

from compass_ray import log_records

log_records.install()

__version__ = "0.1.0"
