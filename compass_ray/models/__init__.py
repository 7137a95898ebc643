"""Models in plain torch: base model, encoder, language identifier, scorer, transfer ranker.

Plain classes that run in a bare process. Nothing here imports Ray, and nothing is imported eagerly.
"""
