"""COMPASS on Ray: one adapter a language, trained on the data that closes its gap, served and kept fresh.

Importing the package costs nothing: neither Ray nor torch is loaded until a module that computes with them is.
"""

__version__ = "0.1.0"
