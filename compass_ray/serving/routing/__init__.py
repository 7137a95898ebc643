"""Whose adapter answers: what a request's model names, which language its prompt is in, and the route, with its reason.

Key property: pure but for the memory of conversations, which `router` holds. COMPASS, sections 3.2.5 and 4.2. It loads no
adapter.
"""
