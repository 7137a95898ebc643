"""Routing: which adapter answers a request. Parses ``model``, identifies the prompt's language, and selects the route.

Pure functions, except for the memory of conversations in `router`. Loads no adapter. COMPASS, sections 3.2.5 and 4.2.
"""
