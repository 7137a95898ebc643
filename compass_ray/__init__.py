"""COMPASS on Ray: an adapter a language, from the data that closes its gap, served and kept fresh.

Importing the package costs nothing: neither Ray nor torch is loaded until a module that needs them is.
"""

__version__ = "0.1.0"
