"""Readers of benchmark test sets: multiple choice, and OneRuler's needles.

Key property: columns and file layouts are those of the hub repositories (COMPASS, section 4.1). Nothing is scored here.
"""
