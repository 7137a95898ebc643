"""Errors of writes as errors for users: what could not be written, why, and what to do."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compass_ray.artifacts.errors import ArtifactError
from compass_ray.texts import shorten

_REMEDIES = {
    errno.ENOSPC: "free space and run again, complete artifacts are kept",
    errno.EDQUOT: "free space or raise the quota, then run again: complete artifacts are kept",
    errno.EROFS: "mount it for writing, or choose another folder",
    errno.EACCES: "give this user the permission to write there, or choose another folder",
    errno.EPERM: "give this user the permission to write there, or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another disk",
    errno.ENOTDIR: "a part of this path is a file: remove it, or choose another folder",
    errno.EISDIR: "it is a folder: remove it, or choose another path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files",
    errno.EIO: "check the disk, then run again: complete artifacts are kept",
    errno.ESTALE: "check the network file system, then run again: complete artifacts are kept",
    errno.ENOENT: "create the folder, or choose another one",
    errno.EEXIST: "a file has the name of a folder there: remove it, or choose another folder",
    errno.ELOOP: "correct the symbolic links of this path, or choose another folder",
    errno.ETXTBSY: "stop the program that uses the file, then run again",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors that come from the disk alone."""
_OF_THE_DISK = (*_FULL, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE)
"""Errors whose cause and remedy are known without the operation."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors, print the number of an error."""
_TORCH = ("PytorchStreamWriter failed", "unexpected pos")
"""What torch.save says if a write fails."""


@contextmanager
def explain_write_errors(path: str | Path, written: Callable[[], int] | None = None) -> Iterator[None]:
    """Raise an ArtifactError with path and remedy for an error of the system while ``path`` is written.

    ``written`` returns the bytes that were written before the error.
    """
    try:
        yield
    except ArtifactError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise ArtifactError(_explain(error.errno, str(path), written)) from None


@contextmanager
def explain_delete_errors(path: str) -> Iterator[None]:
    """Raise an ArtifactError with path and remedy if the system refuses to delete ``path``; FileNotFoundError passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise ArtifactError(f"cannot delete {path} ({os.strerror(error.errno)}); {_remedy(error.errno)}") from None


def explain_os_error(error: OSError) -> str | None:
    """The message for an error of the disk that no reader or writer has explained; None if it is of another kind."""
    if error.errno not in _OF_THE_DISK:
        return None
    path = shorten(error.filename or "a file")
    if error.errno in _FULL:
        return _explain(error.errno, path, None)
    return f"cannot use {path} ({os.strerror(error.errno)}); {_remedy(error.errno)}"


def describe_write_error(error: OSError) -> tuple[str, str]:
    """Reason and remedy of a failed write, without its path. The remedy is empty for an error that is not of the system."""
    if error.errno is None:
        return str(error).splitlines()[0], ""
    return os.strerror(error.errno), _remedy(error.errno)


@contextmanager
def explain_folder_errors(folder: str | Path, *, shown: str | None = None, advice: str = "") -> Iterator[None]:
    """Raise an ArtifactError if a library fails to write below ``folder``, also one in Rust or C++ that raises no OSError.

    The message names ``shown``, or the folder, and ends with ``advice``.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        number = _disk_error(error, str(folder))
        if number is None:
            raise
        raise ArtifactError(_explain(number, shown or str(folder), None) + advice) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder, deleted at the end of the block.

    Raises:
        ArtifactError: the folder cannot be created, or a file in it cannot be written.
    """
    place = f"temporary files in {_temporary_place()}"
    with explain_write_errors(place):
        made = tempfile.TemporaryDirectory(prefix="compass-ray-", ignore_cleanup_errors=True)
    with made as folder, explain_folder_errors(folder, shown=place, advice=". TMPDIR sets another folder for them"):
        yield Path(folder)


def _temporary_place() -> str:
    try:
        return tempfile.gettempdir()
    except OSError as error:  # no folder is writable
        raise ArtifactError(f"there is no folder for temporary files ({error}); set TMPDIR to a writable folder") from None


def _disk_error(error: Exception, folder: str) -> int | None:
    """Number of the system's error if a write below ``folder`` failed."""
    if isinstance(error, OSError) and error.errno is not None:
        inside = isinstance(error.filename, str) and error.filename.startswith(folder)
        return error.errno if error.errno in _FULL or inside else None
    found = _RUST.search(str(error))
    if found and int(found[1]) in _FULL:
        return int(found[1])
    return errno.ENOSPC if any(text in str(error) for text in _TORCH) else None


def _explain(number: int, path: str, written: Callable[[], int] | None) -> str:
    if number == errno.ENOSPC:
        after = f" (after {written()} bytes)" if written else ""
        return f"no space left to write {path}{after}; {_remedy(number)}"
    return f"cannot write {path} ({os.strerror(number)}); {_remedy(number)}"


def _remedy(number: int) -> str:
    return _REMEDIES.get(number, "check the disk, then run again: complete artifacts are kept")
