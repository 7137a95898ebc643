"""Stages of a run, as thin Ray code: each reads complete artifacts of the run and publishes its own.

Stages never import one another. They communicate through the run directory.
"""
