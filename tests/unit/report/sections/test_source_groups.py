"""Tables of who contributes to whom, on counts whose shares and lifts are known."""

from __future__ import annotations

from compass_ray.report.blocks import TableBlock
from compass_ray.report.sections.source_groups import source_group_blocks

POOL = {"sw": 10, "yo": 30, "hi": 20, "ne": 40, "xxx": 10}
ADDED = {"sw": {"yo": 6, "hi": 2, "ne": 2}, "hi": {"ne": 8, "sw": 1, "xxx": 1}}
"""Candidates of sw are 100 rows and those of hi 90, of which 10 each were added."""


def _table(caption: str) -> TableBlock:
    [found] = [each for each in source_group_blocks(ADDED, POOL) if isinstance(each, TableBlock) and caption in each.caption]
    return found


def test_related_rows_stand_beside_those_expected_at_random() -> None:
    table = _table("Rows from related languages")
    columns = {name: table.header.index(name) for name in ("same script, %", "same family, %", "same branch, %")}
    by_language = {row[0]: row for row in table.rows}
    script = slice(columns["same script, %"], columns["same script, %"] + 3)
    assert by_language["Swahili (sw)"][script] == ("60.0", "30.0", "2.00")
    assert by_language["Hindi (hi)"][script] == ("80.0", "44.4", "1.80")
    assert by_language["all languages"][script] == ("70.0", "37.2", "1.88")
    assert [row[1] for row in table.rows] == ["10", "10", "20"]
    branch = slice(columns["same branch, %"], columns["same branch, %"] + 3)
    assert by_language["Swahili (sw)"][branch] == ("60.0", "30.0", "2.00")


def test_groups_have_share_and_lift_and_unknown_languages_are_others() -> None:
    table = _table("by script")
    assert table.header == ("for / from", "Devanagari", "Latin", "others")
    assert table.rows == [
        ("Devanagari", "80.0 (1.80)", "10.0 (0.22)", "10.0 (0.90)"),
        ("Latin", "40.0 (0.67)", "60.0 (2.00)", "0.0 (0.00)"),
    ]
    assert [round(shade, 3) for shade in table.shades[0]] == [0.45, 0.056, 0.225]


def test_sources_are_ordered_by_the_languages_that_get_more_of_them_than_at_random() -> None:
    table = _table("Sources that contribute")
    assert [(row[0], row[2], row[4]) for row in table.rows] == [
        ("Nepali (ne)", "10", "1 of 2"),
        ("Yoruba (yo)", "6", "1 of 2"),
        ("Hindi (hi)", "2", "0 of 1"),
        ("Swahili (sw)", "1", "0 of 1"),
        ("xxx", "1", "0 of 2"),
    ]


def test_there_is_no_table_without_added_rows_or_a_pool() -> None:
    assert list(source_group_blocks({"sw": {}}, POOL)) == []
    assert list(source_group_blocks(ADDED, {})) == []
