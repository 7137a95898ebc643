"""Families of items by subject, and families that settings join."""

from __future__ import annotations

from compass_ray.core.families import family_of, join_families


def test_a_family_is_the_first_part_of_a_subject() -> None:
    assert [family_of(each) for each in ("fact_P17", "language_name_cldr", "law", "_x", "")] == [
        "fact",
        "language",
        "law",
        "",
        "",
    ]


def test_families_that_no_name_lists_keep_their_own() -> None:
    assert join_families(["fact", "gap", "pick"], {"facts": ["fact", "gap"]}) == ("facts", "facts", "pick")


def test_a_star_takes_the_others_in_any_order_of_the_settings() -> None:
    assert join_families(["law", "fact", None], {"mmlu": ["*"], "fact": ["fact"]}) == ("mmlu", "fact", "mmlu")


def test_items_without_a_family_have_the_name_none() -> None:
    assert join_families([None, "", "a"], {}) == ("none", "none", "a")
