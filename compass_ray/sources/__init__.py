"""Sources of rows: hub data sets, local files with the same columns, and the embedded atlas. No Ray, no models."""
