"""Other libraries' progress bars and remarks, held back while an export is written and loaded again.

Key property: only what is named here is held back, and all of it comes again afterwards; errors, and every other warning, are
printed as ever. It decides nothing about what this package prints itself.
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
    """Hold back transformers' bars, its remark on a renamed property that PEFT reads, and DeepSpeed's on a machine of no GPU."""
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
    from transformers.utils import logging as told

    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            told.enable_progress_bar()
