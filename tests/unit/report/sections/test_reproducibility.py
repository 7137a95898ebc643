"""The sweep's table: score and details of each setting."""

from __future__ import annotations

from compass_ray.records.clustering import SweepRecord
from compass_ray.report.sections.reproducibility import _sweep

CELLS = [
    {"parameters": {"threshold": 0.7}, "score": -0.07, "details": {"assigned": 0.93071, "enough_assigned": 0.0}},
    {
        "parameters": {"threshold": 0.8},
        "score": 900.0,
        "chosen": True,
        "details": {"assigned": 0.96, "enough_assigned": 1.0, "assigned_in_fit": 0.9972},
    },
]


def test_details_of_the_sweep_are_columns() -> None:
    table = _sweep(SweepRecord.model_validate({"method": "butina", "backend": "cpu", "cells": CELLS}), "")
    assert table.header == (
        "threshold", "score", "clusters", "noise, %", "assigned", "assigned in fit", "enough assigned", "chosen",
    )  # fmt: skip
    assert [row[4:] for row in table.rows] == [("0.96", "0.9972", "1", "yes"), ("0.9307", "–", "0", "")]
    assert all(len(row) == len(table.header) for row in table.rows)


def test_sweep_without_details_has_no_columns_for_them() -> None:
    cells = [{"parameters": {"n_clusters": 6}, "score": 0.5, "n_clusters": 6, "noise_share": 0.0, "chosen": True}]
    table = _sweep(SweepRecord.model_validate({"cells": cells}), "")
    assert table.header == ("n clusters", "score", "clusters", "noise, %", "chosen")
