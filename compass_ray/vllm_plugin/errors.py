"""The error of an adapter that cannot be served."""

from __future__ import annotations


class DoraAdapterError(ValueError):
    """A DoRA adapter is refused. vLLM returns it to the caller of `add_lora` and goes on."""
