"""The atlas: a small multilingual data set of facts from Unicode CLDR, embedded so that everything runs with no download.

It has the layout of Aya (pool) and Global-MMLU (guide and test sets) in 42 languages, so it is read by the same loaders.
Facts asked in a language's test set are in no row of its pool, but in the pools of other languages. Not a benchmark of
models: its questions are as small as the models that ship with it.
"""

from compass_ray.sources.atlas.export import export
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

__all__ = [
    "AYA_SCHEMA",
    "FULL",
    "GLOBAL_MMLU_SCHEMA",
    "POOL_SCHEMA",
    "SMALL",
    "AtlasSize",
    "atlas_guide",
    "atlas_pool",
    "atlas_test",
    "export",
    "subjects",
]
