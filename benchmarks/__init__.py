"""Measurements of this project against what a user would reach for instead; see README.md here."""
