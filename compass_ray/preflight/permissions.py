"""Check that other users of this machine cannot read the file of API keys and the stored prompts."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs as pafs

from compass_ray.artifacts.private_files import is_open_to_others
from compass_ray.preflight.check_result import CheckContext, CheckResult


def check_permissions(context: CheckContext) -> list[CheckResult]:
    """Report private files and folders that other users may open. Object stores have access rules of their own."""
    keys = context.config.serve.api_keys
    private = [(Path(keys).expanduser(), "600", "the file of API keys")] if keys else []
    if isinstance(context.run.filesystem, pafs.LocalFileSystem):
        private.append((Path(context.run.path, "monitor"), "700", "the folder of the stored prompts"))
    return [
        CheckResult("permissions", f"{path}, {content}, is open to other users", f"run 'chmod {mode} {path}'")
        for path, mode, content in private
        if path.exists() and is_open_to_others(path)
    ]
