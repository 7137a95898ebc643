"""Families of test items: groups of subjects that weigh alike in a mean.

The family of an item is the ``family`` column of its test set. Without one it is the first part of its subject, up to the first
underscore: ``fact_P17`` and ``fact_P36`` are of the family ``fact``. Settings may join families under one name.
"""

from collections.abc import Mapping, Sequence

OTHERS = "*"
"""In the families that a name joins: every family that no name lists."""


def family_of(subject: str | None) -> str | None:
    """The family of a subject; None without a subject.

    >>> family_of("fact_P17"), family_of("emoji_food_1"), family_of("astronomy"), family_of(None)
    ('fact', 'emoji', 'astronomy', None)
    """
    return None if subject is None else subject.partition("_")[0]


def join_families(families: Sequence[str | None], joined: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The name of each item's family, after families were joined under one name. Items without a family are ``none``.

    Args:
        families: the family of each item.
        joined: the families that each name joins; `OTHERS` is all that no name lists.

    >>> join_families(["region", "language", "fact", "law", None], {"names": ["region", "language"], "other": ["*"]})
    ('names', 'names', 'other', 'other', 'other')
    """
    names = {family: name for name, listed in joined.items() for family in listed}
    return tuple(names.get(family, names.get(OTHERS, family)) for family in (each or "none" for each in families))
