"""The algorithm of COMPASS as pure functions of arrays.

Every function here is a function of its arguments alone: numpy and scipy, no Ray, no torch, no files, no
clock, and random numbers only from a generator that is handed in. One method a module; nothing is imported
eagerly.
"""
