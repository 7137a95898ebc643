"""Thin Ray around the algorithm: each stage reads whole artefacts of a run and publishes its own.

Stages never import one another; they meet on disk.
"""
