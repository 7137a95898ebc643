"""Ray's messages go to a file that is named; errors of this process stay on the terminal."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def _run(body: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = """
        import os, sys
        from compass_ray.ray_session import message_log
        message_log.separate_stderr()
        with message_log.log_messages() as log:
            os.write(2, b"[raylet] an internal line\\n")
            print("a line of the command", file=sys.stderr)
            {body}
        print("after", [line for line in log.last_lines()], file=sys.stderr)
        os.write(2, b"the end\\n")
    """
    code = textwrap.dedent(program).replace("{body}", body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"TMPDIR": str(folder)})


def test_messages_are_in_the_file_only(tmp_path: Path) -> None:
    done = _run("pass", tmp_path)
    assert done.stderr == "a line of the command\nafter ['[raylet] an internal line']\nthe end\n"
    [file] = tmp_path.glob("compass-ray-*.log")
    assert file.read_text() == "[raylet] an internal line\n"


@pytest.mark.parametrize("end", ["os.abort()", "os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_at_once_shows_the_last_messages(tmp_path: Path, end: str) -> None:
    done = _run(end, tmp_path)
    assert done.returncode != 0
    named = re.search(r"ended unexpectedly\. The last messages of Ray, from (\S+):\n\[raylet\] an internal line\n", done.stderr)
    assert named, done.stderr
    assert Path(named[1]).exists()
    assert ("Fatal Python error: Aborted" in done.stderr) == (end == "os.abort()")


def test_the_end_of_an_inner_block_leaves_the_outer_one_watched(tmp_path: Path) -> None:
    done = _run("exec('with message_log.log_messages(): pass'); os._exit(1)", tmp_path)
    assert "ended unexpectedly. The last messages of Ray" in done.stderr


def test_an_error_of_python_stays_on_the_terminal(tmp_path: Path) -> None:
    done = _run("raise ValueError('broken')", tmp_path)
    assert "ValueError: broken" in done.stderr
    assert "internal line" not in done.stderr


def test_an_empty_file_is_removed(tmp_path: Path) -> None:
    done = _run("os.truncate(log.path, 0)", tmp_path)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


def test_an_end_that_the_command_reports_shows_no_messages(tmp_path: Path) -> None:
    done = _run("message_log.dismiss_watchers(); os._exit(3)", tmp_path)
    assert (done.returncode, done.stderr) == (3, "a line of the command\n")
