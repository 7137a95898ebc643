"""Triton kernels that apply many adapters to one batch of tokens."""
