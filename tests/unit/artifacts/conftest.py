"""The served run of `tests.unit.served_run`."""

from tests.unit.served_run import config, run

__all__ = ["config", "run"]
