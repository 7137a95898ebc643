"""Rows in: hub data sets, local files of the same columns, and the embedded atlas. No Ray, no models."""
