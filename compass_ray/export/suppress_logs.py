"""Suppression of other libraries' progress bars and messages during an export.

Key property: only the messages named here are suppressed, and only within the context. Errors and all other warnings are
printed as usual. The output of this package does not change.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_DEEPSPEED = logging.getLogger("DeepSpeed")
_NO_GPU = "Setting accelerator to CPU"


@contextmanager
def suppress_library_logs() -> Iterator[None]:
    """Suppress three outputs: transformers' progress bars, its warning on a property that PEFT reads, DeepSpeed's on no GPU."""
    _DEEPSPEED.addFilter(_is_relevant)
    try:
        with warnings.catch_warnings(), _hide_progress_bars():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        _DEEPSPEED.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    return _NO_GPU not in record.getMessage()


@contextmanager
def _hide_progress_bars() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
