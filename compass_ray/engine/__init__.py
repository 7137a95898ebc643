"""Continuous batching of requests with many adapters on one base model. No Ray, no HTTP."""
