"""The algorithm of COMPASS as pure functions of arrays.

Results depend only on arguments: no Ray, no torch, no files, no clock, and random numbers only from a generator argument.
The modules use numpy and scipy. Each module holds one method; nothing is imported eagerly.
"""
