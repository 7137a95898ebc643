"""Names of the stages of a run, in order. `pipeline` has their functions, and loads more than shell completion may wait for."""

from __future__ import annotations

STAGE_NAMES = ("pool", "embed", "cluster", "tune", "select", "train", "full", "evaluate", "report")
