"""Feature vectors of languages, and measured transfers between languages (COMPASS, section 4.3).

Key property: vectors name their source, which is lang2vec or a built-in table. No downloads.
"""

from compass_ray.sources.typology.transfers import PACKAGED, Transfers, read_transfers
from compass_ray.sources.typology.vectors import LanguageVectors, load_language_vectors, vectors_source

__all__ = ["PACKAGED", "LanguageVectors", "Transfers", "load_language_vectors", "read_transfers", "vectors_source"]
