"""The facts of the atlas: a relation holds between two entities, and a relation within a region is a subject.

Key property: facts are of the world, not of a language; the same fact is asked in every language that names both entities,
so rows of one language can teach another. Currencies, languages, zones and week data come from CLDR's
supplemental data through Babel, regions from UN M49. Not here: wording, splits, and which facts a language can ask.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

from babel.core import Locale, get_global

from compass_ray.sources.atlas.geography import (
    CURRENCY_TERRITORIES,
    CURRENCY_UNITS,
    HOME_LANGUAGES,
    MAIN_LANGUAGE,
    MAIN_ZONE,
    SCRIPT_LANGUAGES,
    SUBREGIONS,
    WEEK_TERRITORIES,
)
from compass_ray.sources.atlas.names import Entity

ANSWER_SHARE = 1 / 3
"""Maximum share of one answer in a subject: otherwise Spanish would answer most of `language_americas`."""

_OFFICIAL = frozenset({"official", "de_facto_official", "official_regional"})


@dataclass(frozen=True, slots=True)
class Fact:
    """`relation` holds between `question_entity` and `answer`; `knowledge` is equal for facts that reveal each other.

    `template` names the wording (the two directions of a calendar relation differ). `also_true` holds further correct
    answers, which must not be wrong options.
    """

    subject: str
    template: str
    question_entity: Entity
    answer: Entity
    knowledge: str
    also_true: frozenset[Entity] = frozenset()

    @property
    def fact_id(self) -> str:
        """A name that is unique over the atlas and equal in all languages."""
        return f"{self.subject}/{self.template}/{self.question_entity.code.replace('/', '_')}"


@cache
def facts(per_subject: int) -> tuple[Fact, ...]:
    """Return at most `per_subject` facts of every subject, subject by subject."""
    grouped: dict[str, list[Fact]] = {}
    for each in _all_facts():
        grouped.setdefault(each.subject, []).append(each)
    return tuple(each for group in grouped.values() for each in _balanced(group, per_subject))


@cache
def subjects() -> tuple[str, ...]:
    """The names of all subjects, in the order of the atlas."""
    return tuple(dict.fromkeys(each.subject for each in _all_facts()))


def _balanced(group: list[Fact], per_subject: int) -> Iterator[Fact]:
    most = max(1, round(ANSWER_SHARE * min(per_subject, len(group))))
    met: Counter[Entity] = Counter()
    for each in group:
        if met.total() < per_subject and met[each.answer] < most:
            met[each.answer] += 1
            yield each


@cache
def _all_facts() -> tuple[Fact, ...]:
    sources = (_cities(), _subregions(), _currencies(), _languages(), _homes(), _scripts(), _calendar(), _weeks())
    return tuple(each for source in sources for each in source)


def _territories(region: str) -> list[str]:
    columns = [members.split() for members in SUBREGIONS[region].values()]
    return [each for row in zip_longest(*columns) for each in row if each is not None]


def _cities() -> Iterator[Fact]:
    for region in SUBREGIONS:
        pairs = [(Entity("territory", each), Entity("city", _zone(each))) for each in _territories(region)]
        for territory, city in pairs:
            yield Fact(f"city_{region}", "city", territory, city, f"city/{territory.code}")
        for territory, city in pairs:
            yield Fact(f"city_country_{region}", "city_country", city, territory, f"city/{territory.code}")


def _zone(territory: str) -> str:
    zones: list[str] = get_global("territory_zones")[territory]
    return MAIN_ZONE[territory] if territory in MAIN_ZONE else zones[0]


def _subregions() -> Iterator[Fact]:
    for region, parts in SUBREGIONS.items():
        part_of = {each: code for code, members in parts.items() for each in members.split()}
        for each in _territories(region):
            asked, answer = Entity("territory", each), Entity("subregion", part_of[each])
            yield Fact(f"subregion_{region}", "subregion", asked, answer, f"subregion/{each}")


def _currencies() -> Iterator[Fact]:
    unit_of = {code: unit for unit, codes in CURRENCY_UNITS.items() for code in codes.split()}
    for region, members in CURRENCY_TERRITORIES.items():
        for each in members.split():
            unit = Entity("unit", unit_of[_currency(each)])
            yield Fact(f"currency_{region}", "currency", Entity("territory", each), unit, f"currency/{each}")


def _currency(territory: str) -> str:
    known = [code for codes in CURRENCY_UNITS.values() for code in codes.split()]
    current = [code for code, _, end, tender in get_global("territory_currencies")[territory] if tender and not end]
    return next(code for code in known if code in current)


def _languages() -> Iterator[Fact]:
    for region in ("africa", "americas"):
        for each in _territories(region):
            spoken = get_global("territory_languages")[each]
            main = MAIN_LANGUAGE.get(each) or max(spoken, key=lambda code: float(spoken[code]["population_percent"]))
            official = {code for code, known in spoken.items() if known["official_status"] in _OFFICIAL}
            yield Fact(
                f"language_{region}",
                "language",
                Entity("territory", each),
                Entity("language", main),
                f"language/{each}",
                frozenset(Entity("language", code) for code in official - {main}),
            )


def _homes() -> Iterator[Fact]:
    for region, members in HOME_LANGUAGES.items():
        for each in members.split():
            home = Entity("territory", _likely(each)[2])
            also = frozenset(Entity("territory", where) for where in _speakers(each)) - {home}
            yield Fact(f"language_home_{region}", "language_home", Entity("language", each), home, f"home/{each}", also)


def _likely(code: str) -> tuple[str, str, str]:
    language, script, territory = get_global("likely_subtags")[code].split("_")
    return language, script, territory


@cache
def _speakers(code: str) -> frozenset[str]:
    return frozenset(where for where, spoken in get_global("territory_languages").items() if code in spoken)


def _scripts() -> Iterator[Fact]:
    for each in SCRIPT_LANGUAGES.split():
        yield Fact("script", "script", Entity("language", each), Entity("script", _likely(each)[1]), f"script/{each}")


def _calendar() -> Iterator[Fact]:
    yield from _neighbours("calendar_months", "month", [str(each) for each in range(1, 13)])
    yield from _neighbours("calendar_days", "day", [str(each) for each in range(7)])


def _neighbours(subject: str, kind: str, cycle: list[str]) -> Iterator[Fact]:
    def entity(index: int) -> Entity:
        return Entity("month" if kind == "month" else "day", cycle[index % len(cycle)])

    for index in range(len(cycle)):
        key = f"{kind}/{index}-{(index + 1) % len(cycle)}"
        yield Fact(subject, f"{kind}_after", entity(index), entity(index + 1), key)
        yield Fact(subject, f"{kind}_before", entity(index + 1), entity(index), key)


def _weeks() -> Iterator[Fact]:
    for each in WEEK_TERRITORIES.split():
        first = Entity("day", str(Locale.parse(f"und_{each}").first_week_day))
        yield Fact("week_start", "week_start", Entity("territory", each), first, f"week/{each}")


def entities(of: Iterable[Fact]) -> tuple[Entity, ...]:
    """Return every entity that some fact asks about or answers with, sorted."""
    return tuple(sorted({entity for each in of for entity in (each.question_entity, each.answer)}))
