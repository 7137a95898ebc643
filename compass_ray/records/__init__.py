"""One class for each JSON file, or line of one, in a run directory. The writer and the reader use the same class.

A new key is added here first. Names of keys never change: a record of an earlier version still reads. Arrow schemas are
in `schemas`.
"""
