"""The served run of `tests.unit.served_run`."""

from tests.unit.served_run import assigner, clock, config, make_adapter, run

__all__ = ["assigner", "clock", "config", "make_adapter", "run"]
