"""Scenarios: the subjects of the traffic in each period. The five periods are those of COMPASS, appendix D.2.

A scenario contains subjects only. The first adapter is made for the first group; each further group joins in a period of
its own; in the last period only the first group remains. No prompts are drawn here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from compass_ray.config import ConfigError
from compass_ray.core.seeds import generator

GROUP_SHARES = (0.4, 0.2, 0.2, 0.2)
"""Shares of the subjects in a random scenario: the first group and three that join, such as 8, 4, 4 and 4 of 20."""


@dataclass(frozen=True)
class Period:
    """A period of traffic. ``new_subjects`` occur for the first time; ``known_subjects`` occurred before."""

    name: str
    known_subjects: tuple[str, ...]
    new_subjects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Groups of subjects in the order in which they join the traffic."""

    name: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def subjects(self) -> frozenset[str]:
        """All subjects of the scenario."""
        return frozenset(subject for group in self.groups for subject in group)

    def periods(self) -> tuple[Period, ...]:
        """The period of the first group, one for each group that joins, and one with the first group again.

        >>> [(p.name, p.known_subjects, p.new_subjects) for p in Scenario("two", (("a",), ("b",))).periods()]
        [('T1', ('a',), ()), ('T2', ('a',), ('b',)), ('T3', ('a',), ())]
        """
        first, *joining = self.groups
        found = [Period("T1", first)]
        for number, group in enumerate(joining, start=2):
            before = found[-1]
            found.append(Period(f"T{number}", (*before.known_subjects, *before.new_subjects), group))
        return (*found, Period(f"T{len(self.groups) + 1}", first))

    def restrict_to(self, known: Collection[str]) -> Scenario:
        """The same scenario without subjects that have no prompts.

        Raises:
            ConfigError: a group has no prompts at all.
        """
        groups = tuple(tuple(subject for subject in group if subject in known) for group in self.groups)
        lacking = [group for group, left in zip(self.groups, groups, strict=True) if not left]
        if lacking:
            raise ConfigError(
                f"scenario {self.name} lacks prompts of {len(lacking)} of its {len(groups)} groups of subjects, such as "
                f"{', '.join(lacking[0][:3])}; choose another --scenario, or add test questions with --tests"
            )
        return Scenario(self.name, groups)


def random_scenario(subjects: Collection[str], seed: int) -> Scenario:
    """Assign single subjects to groups at random, so that a group is not one field.

    Raises:
        ConfigError: too few subjects for four groups.
    """
    rows = sorted(subjects)
    sizes = [int(share * len(rows)) for share in GROUP_SHARES]
    if not all(sizes):
        raise ConfigError(f"there are prompts of only {len(rows)} subjects; a simulation needs 5 or more for its four groups")
    mixed = [rows[i] for i in generator(seed, "scenario").permutation(len(rows))]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return Scenario("drawn", tuple(tuple(mixed[end - size : end]) for size, end in zip(sizes, ends, strict=True)))


def family_scenario(subjects: Collection[str], seed: int) -> Scenario:
    """Assign families of subjects (names with the same first word) to groups at random, so that a group has complete fields.

    Raises:
        ConfigError: too few families for four groups.
    """
    found: dict[str, list[str]] = {}
    for subject in sorted(subjects):
        found.setdefault(subject.split("_")[0], []).append(subject)
    if len(found) < len(GROUP_SHARES):
        raise ConfigError(
            f"there are only {len(found)} families of subjects ({', '.join(found)}); {len(GROUP_SHARES)} or more are needed"
        )
    names = list(found)
    remaining = [found[names[i]] for i in generator(seed, "families").permutation(len(names))]
    groups: list[tuple[str, ...]] = []
    for index, share in enumerate(GROUP_SHARES):
        group = remaining.pop(0)
        while len(remaining) > len(GROUP_SHARES) - 1 - index and (
            len(group) < share * len(subjects) or index == len(GROUP_SHARES) - 1
        ):
            group = [*group, *remaining.pop(0)]
        groups.append(tuple(group))
    return Scenario("families", tuple(groups))


PAPER = Scenario(
    "paper",
    (
        (
            "abstract_algebra", "elementary_mathematics", "high_school_biology", "high_school_chemistry",
            "high_school_physics", "high_school_psychology", "high_school_statistics", "high_school_us_history",
            "high_school_world_history", "high_school_geography", "anatomy", "astronomy", "conceptual_physics",
            "global_facts", "human_aging", "nutrition", "prehistory", "sociology", "miscellaneous",
            "high_school_government_and_politics", "high_school_macroeconomics", "high_school_microeconomics",
            "public_relations", "virology", "high_school_computer_science", "high_school_mathematics",
            "high_school_european_history",
        ),
        (
            "college_computer_science", "college_mathematics", "college_medicine", "college_physics", "college_biology",
            "college_chemistry", "computer_security", "electrical_engineering", "medical_genetics", "machine_learning",
        ),
        (
            "philosophy", "world_religions", "moral_scenarios", "moral_disputes", "human_sexuality",
            "professional_psychology", "formal_logic", "business_ethics", "jurisprudence", "logical_fallacies",
        ),
        (
            "management", "marketing", "professional_accounting", "professional_medicine", "professional_law",
            "clinical_knowledge", "econometrics", "security_studies", "us_foreign_policy", "international_law",
        ),
    ),
)  # fmt: skip
"""Basic knowledge, then STEM, humanities and professions. The paper counts 27 subjects in the first group but prints 25 valid
ones: one is named twice and one is not a subject of MMLU. High-school mathematics and European history complete the 27."""

ATLAS = Scenario(
    "atlas",
    (
        (
            "city_africa", "city_americas", "city_asia", "city_europe",
            "subregion_africa", "subregion_americas", "subregion_asia", "subregion_europe",
        ),
        ("city_country_africa", "city_country_americas", "city_country_asia", "city_country_europe"),
        ("currency_africa", "currency_asia", "language_africa", "language_americas"),
        ("language_home_africa", "language_home_asia", "language_home_europe", "script"),
    ),
)  # fmt: skip
"""Twenty subjects of the atlas: cities and regions, then three groups of new relations."""

NAMED_SCENARIOS = {each.name: each for each in (PAPER, ATLAS)}
RANDOM_SCENARIOS = {"families": family_scenario, "drawn": random_scenario}


def choose_scenario(name: str | None, subjects: Collection[str], seed: int) -> Scenario:
    """The scenario with a name, or by default the first that the subjects with prompts support.

    Raises:
        ConfigError: an unknown name, or too few subjects for the scenario.
    """
    default = next((each.name for each in NAMED_SCENARIOS.values() if each.subjects <= set(subjects)), "drawn")
    chosen = name or default
    if chosen in RANDOM_SCENARIOS:
        return RANDOM_SCENARIOS[chosen](subjects, seed)
    if chosen not in NAMED_SCENARIOS:
        raise ConfigError(f"unknown scenario {chosen!r}; choose one of {', '.join([*NAMED_SCENARIOS, *RANDOM_SCENARIOS])}")
    return NAMED_SCENARIOS[chosen].restrict_to(subjects)
