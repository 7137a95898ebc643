"""The served run of `tests.unit.served_run`."""

from tests.unit.served_run import clock, config, make_adapter, placer, run

__all__ = ["clock", "config", "make_adapter", "placer", "run"]
