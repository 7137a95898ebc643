"""A request on its way from its route to its reply, whole or piece by piece, and all the ways in which it can fail.

Key property: plain Python over protocols. It parses no HTTP, which is `api`, and generates nothing.
"""
