"""COMPASS on Ray: train, serve, monitor and update one adapter per language.

Importing the package loads neither Ray nor torch.
"""

__version__ = "0.1.0"
