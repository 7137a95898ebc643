"""The command as its console script runs it, in this process."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

import pytest

from compass_ray import cli


class Done(NamedTuple):
    """How a command ended, and what it printed without colours."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]
"""Takes a command line as typed, and words that are not split."""


def command_in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command on a wide terminal, without the caller's debug setting."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("COMPASS_RAY_DEBUG", raising=False)

    def call(line: str, *words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["compass-ray", *shlex.split(line), *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int | None)
        return Done(ended.value.code or 0, _plain(printed.out), _plain(printed.err))

    return call


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
