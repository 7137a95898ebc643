"""The table of transfer languages: values of the selections; empty if no such method has run."""

from __future__ import annotations

from collections.abc import Callable

from compass_ray.artifacts import RunDir
from compass_ray.config import RunConfig
from compass_ray.report.blocks import TableBlock
from compass_ray.report.run_reader import RunReader
from compass_ray.report.sections import added_rows


def test_languages_and_vectors_are_named(run: RunDir, config: RunConfig, publish: Callable[..., None]) -> None:
    assert list(added_rows.transfer_language_blocks(RunReader(run), config.languages)) == []
    written = run.selection("compass", "hi").read_json("allocation.json")
    transfer = {"languages": ["ne", "bn", "mar"], "similarity": [0.9, 0.8, 0.8], "vectors": "lang2vec 1.1.2", "rows": "budget"}
    publish(run.selection("langsim", "hi"), {"allocation.json": written | {"method": "langsim", "transfer": transfer}})
    [block] = added_rows.transfer_language_blocks(RunReader(run), config.languages)
    assert isinstance(block, TableBlock)
    assert block.rows == [("Hindi (hi)", "LangSim", "Nepali (ne), Bengali (bn), Marathi (mar)", "lang2vec 1.1.2")]
    assert block in added_rows.section(RunReader(run), config.languages).blocks
