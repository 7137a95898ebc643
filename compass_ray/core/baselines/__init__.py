"""Baseline methods of the comparison with COMPASS, one per module, as pure functions (COMPASS, section 4.3).

Each picks as many candidates as COMPASS selects. None uses clusters, so noise rows may be picked as well. Texts, language
vectors and rankers come in as arrays.
"""
