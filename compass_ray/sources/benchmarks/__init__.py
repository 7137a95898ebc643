"""Test sets as their authors lay them out: multiple choice, and questions that are answered in words or numbers.

Key property: columns and file layouts are those of the hub's repositories (COMPASS, section 4.1). Scores nothing.
"""
