"""The atlas: a small multilingual data set of facts from Unicode CLDR, embedded so that everything runs without downloads.

It has the layouts of Aya (pool) and Global-MMLU (guide and test sets) in 42 languages, so the same readers load it. A fact
in the test set of a language is in no row of its pool, but in the pools of other languages. It is not a benchmark of
models: its questions are as simple as the models that ship with it.
"""

from compass_ray.sources.atlas.facts import subjects
from compass_ray.sources.atlas.rows import (
    AYA_SCHEMA,
    GLOBAL_MMLU_SCHEMA,
    POOL_SCHEMA,
    atlas_guide,
    atlas_pool,
    atlas_test,
)
from compass_ray.sources.atlas.splits import FULL, SMALL, AtlasSize

CONTENT_HASH = "3269e76ccc824504"
"""Identity of the atlas in fingerprints. Change it together with the generated data; a test compares both."""

__all__ = [
    "AYA_SCHEMA",
    "CONTENT_HASH",
    "FULL",
    "GLOBAL_MMLU_SCHEMA",
    "POOL_SCHEMA",
    "SMALL",
    "AtlasSize",
    "atlas_guide",
    "atlas_pool",
    "atlas_test",
    "subjects",
]
