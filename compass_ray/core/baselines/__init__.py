"""The methods that COMPASS is compared with, one a module, as pure functions (COMPASS, section 4.3).

Key property: each says which candidates it would take, as many as COMPASS takes; none looks at clusters, so noise
rows may be taken like any other. Not here: texts, language vectors and rankers, which are handed in as arrays.
"""
