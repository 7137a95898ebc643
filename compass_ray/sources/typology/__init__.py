"""Languages as vectors of their features, and what has been measured of transfer between them (COMPASS, section 4.3).

Key property: the vectors say where they are from, a package that is kept elsewhere or a table of our own. No downloads.
"""

from compass_ray.sources.typology.transfers import PACKAGED, Transfers, read_transfers
from compass_ray.sources.typology.vectors import LanguageVectors, load_language_vectors, vectors_source

__all__ = ["PACKAGED", "LanguageVectors", "Transfers", "load_language_vectors", "read_transfers", "vectors_source"]
