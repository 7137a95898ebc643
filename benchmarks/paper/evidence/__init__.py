"""The evidence of `protocol.yaml`: material, training and scoring at equal cost, statistics, and a page."""
