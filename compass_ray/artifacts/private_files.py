"""Permissions of local files that hold prompts or secrets: only the user who runs the process can read them.

Files have mode 0600 and folders 0700, whatever the umask is. Object stores have access rules of their own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
_OTHERS = 0o077


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can open, or restrict an existing one. A folder of another user is left as it is."""
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    if is_open_to_others(folder):
        with suppress(PermissionError):
            folder.chmod(PRIVATE_FOLDER)


def restrict_file(descriptor: int) -> None:
    """Remove all permissions of other users from an open file. A file of another user is left as it is."""
    if os.fstat(descriptor).st_mode & _OTHERS:
        with suppress(PermissionError):
            os.fchmod(descriptor, PRIVATE_FILE)


def is_open_to_others(path: Path) -> bool:
    """Whether the group or other users have any permission on an existing file or folder."""
    return bool(path.stat().st_mode & _OTHERS)
