"""The torch side: encoder, clusterers, language identifier, adapters, fine-tuning, scoring and generation.

Plain classes that run in a bare process. Nothing here imports Ray, and nothing is imported eagerly.
"""
