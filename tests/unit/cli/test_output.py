"""The terminal: no text of a user controls it, in any form of output."""

from __future__ import annotations

import json

import pytest

from compass_ray.cli import output
from compass_ray.cli.app import _fail
from tests.unit.command_line import Command

NASTY = "a\x1b[2Jb\x9b1m\u202ec\rd"
ACTING = {"\x1b", "\x9b", "\u202e", "\r"}


def test_tables_and_lines_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_rows(["prompt", "n"], [[NASTY, 1], ["plain", 2]])
    output.print_lines([NASTY])
    output.out.print(NASTY, markup=False)
    shown = capsys.readouterr().out
    assert not ACTING & set(shown)
    assert "a\\x1b[2Jb\\x9b1m\\u202ec\\x0dd" in shown
    assert len({line.rindex(number) for line, number in zip(shown.splitlines()[1:3], "12", strict=True)}) == 1


def test_errors_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _fail(NASTY, 2)
    assert not ACTING & set(capsys.readouterr().err)


def test_json_has_the_same_value_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit(True, {"prompt": NASTY + "ሀ"}, lambda: None)
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"prompt": NASTY + "ሀ"}
    assert "ሀ" in shown
    assert not ACTING & set(shown)


def test_a_file_name_cannot_control_the_terminal(compass_ray: Command) -> None:
    done = compass_ray("status 'no\x1b[31msuch\u202e'")
    assert done.code != 0
    assert not ACTING & set(done.err + done.out)
