"""A signal ends a command, also if its Ray is dead or the main thread never returns from a call."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from compass_ray.ray_session.stop_signals import StopSignals

_STUCK = "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 2**31 - 1)  # for an hour, and never looks at signals"
_SLEEPS = "time.sleep(3600)"
_CATCHES = """
    try:
        time.sleep(3600)
    except KeyboardInterrupt:
        time.sleep(3600)  # a clean-up that waits for Ray"""
_OWN_HANDLER = """
    signal.signal(signal.SIGTERM, lambda *_: None)
    while True:
        time.sleep(3600)"""


def _end(body: str, number: signal.Signals, *, dead: bool) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(
        """
        import hashlib, os, signal, sys, threading, time
        from compass_ray.ray_session import stop_signals
        stop_signals._UNWIND_S = stop_signals._WITHOUT_RAY_S = 0.05
        stop_signals._POLL_S = 0.01
        def send():
            os.kill(os.getpid(), int(sys.argv[1]))
        with stop_signals.StopSignals(lambda: {dead}).unwinding():
            threading.Timer(0.1, send).start()
            {body}
        """
    ).format(dead=dead, body=body.replace("\n    ", "\n    ").strip())
    return subprocess.run([sys.executable, "-c", program, str(int(number))], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "number", "dead"),
    [
        (_SLEEPS, signal.SIGTERM, False),
        (_SLEEPS, signal.SIGHUP, False),
        (_CATCHES, signal.SIGTERM, False),
        (_CATCHES, signal.SIGINT, True),
        (_STUCK, signal.SIGTERM, True),
        (_STUCK, signal.SIGHUP, True),
        (_OWN_HANDLER, signal.SIGTERM, True),
    ],
)
def test_a_signal_ends_the_process_with_its_code(body: str, number: signal.Signals, dead: bool) -> None:
    ended = _end(body, number, dead=dead)
    assert ended.returncode == 128 + number, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_that_is_ended_says_how_to_continue() -> None:
    assert _end(_STUCK, signal.SIGTERM, dead=True).stderr.startswith("error: stopped by SIGTERM; run the same command again")


def test_an_ignored_signal_stays_ignored_and_handlers_are_restored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        others = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        with StopSignals(lambda: False).unwinding():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != others[0]
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == others
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_ray_that_ends_without_a_signal_ends_no_process() -> None:
    ended: list[int] = []
    with StopSignals(lambda: True, ended.append).unwinding():
        pass
    assert ended == []
