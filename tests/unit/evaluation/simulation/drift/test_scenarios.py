"""Scenarios: the paper's groups, those of the atlas, and random groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.config import ConfigError
from compass_ray.evaluation.simulation.drift.scenarios import ATLAS, PAPER, choose_scenario, family_scenario, random_scenario
from compass_ray.sources.atlas.facts import subjects


def test_the_paper_adds_ten_subjects_three_times_to_its_first_27_and_returns_to_them() -> None:
    periods = PAPER.periods()
    assert [each.name for each in periods] == ["T1", "T2", "T3", "T4", "T5"]
    assert [len(each.new_subjects) for each in periods] == [0, 10, 10, 10, 0]
    assert [len(each.known_subjects) for each in periods] == [27, 27, 37, 47, 27]
    assert len(PAPER.subjects) == 57
    assert periods[-1].known_subjects == periods[0].known_subjects


def test_the_atlas_has_the_twenty_subjects_that_its_scenario_names() -> None:
    assert [len(group) for group in ATLAS.groups] == [8, 4, 4, 4]
    assert len(ATLAS.subjects) == 20
    assert ATLAS.subjects <= set(subjects())


@given(st.sets(st.text(min_size=1, max_size=5), min_size=5, max_size=60), st.integers(0, 99))
def test_random_groups_share_no_subject_and_follow_the_seed(found: set[str], seed: int) -> None:
    dealt = random_scenario(found, seed)
    named = [subject for group in dealt.groups for subject in group]
    assert len(named) == len(set(named))
    assert set(named) <= found
    assert dealt == random_scenario(sorted(found, reverse=True), seed)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=4), st.integers(0, 99))
def test_families_join_completely(sizes: dict[str, int], seed: int) -> None:
    found = [f"{name}_{i}" for name, size in sizes.items() for i in range(size)]
    dealt = family_scenario(found, seed)
    assert sorted(subject for group in dealt.groups for subject in group) == sorted(found)
    assert all(dealt.groups)
    for name in sizes:
        assert sum(any(subject.startswith(name) for subject in group) for group in dealt.groups) == 1


def test_the_default_scenario_is_the_one_that_the_subjects_support() -> None:
    assert choose_scenario(None, PAPER.subjects, 0) is not None
    assert choose_scenario(None, PAPER.subjects, 0).name == "paper"
    assert choose_scenario(None, subjects(), 0).name == "atlas"
    assert choose_scenario(None, "abcdefgh", 0).name == "drawn"


def test_subjects_without_a_prompt_are_omitted_unless_they_are_a_complete_group() -> None:
    assert len(choose_scenario("atlas", ATLAS.subjects - {"script"}, 0).subjects) == 19
    with pytest.raises(ConfigError, match="1 of its 4 groups of subjects, such as city_country_africa, city_country_americas"):
        choose_scenario("atlas", ATLAS.subjects - set(ATLAS.groups[1]), 0)


def test_an_invalid_scenario_is_rejected() -> None:
    with pytest.raises(ConfigError, match="unknown scenario 'mine'; choose one of paper, atlas, families, drawn"):
        choose_scenario("mine", ATLAS.subjects, 0)
    with pytest.raises(ConfigError, match="5 or more"):
        random_scenario("abcd", 0)
    with pytest.raises(ConfigError, match=r"only 2 families of subjects \(city, script\)"):
        family_scenario(["city_africa", "city_asia", "script"], 0)
