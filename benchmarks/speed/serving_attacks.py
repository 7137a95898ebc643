"""Latency of honest requests to a service while another client sends long headers or half-sent bodies.

Each attack is measured in front of Ray Serve's own proxy and, if nginx is installed, of `cluster_configs/nginx`. Everything is on
127.0.0.1, bounded in bytes, connections and seconds. To measure Serve's proxy without the parser that the service selects, set
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH to nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.nginx_process import NGINX, FrontProxy, on_machines, start_nginx
from benchmarks.speed.serving_fixture import SEED, Shape, make_run, serving
from benchmarks.speed.serving_processes import Role, list_processes

_MIB = 1 << 20
_PAUSE_S = 0.05
_ATTACK_LIMIT_S = 60.0
_HONEST_TIMEOUT_S = 10.0
_HONEST_ADDRESS = "127.0.0.2"
"""Another address than that of the attack, because the proxy counts by address. Linux has all of 127.0.0.0/8."""
_CHAT = "/v1/chat/completions"
_BODY: dict[str, Any] = {"model": "base", "max_tokens": 1, "messages": [{"role": "user", "content": "Habari ya asubuhi"}]}


@dataclass(frozen=True)
class AttackPlan:
    """Sizes of the header lines in MiB, number of half-sent bodies, and honest requests during these."""

    header_mib: tuple[int, ...] = (1, 60, 300)
    half_sent: int = 400
    honest: int = 20


SMALL = AttackPlan(header_mib=(1,), half_sent=20, honest=2)


def measure(folder: Path, plan: AttackPlan) -> dict[str, Value]:
    """Run every attack on both fronts."""
    run, config = make_run(folder, Shape(32, 1, ("sw", "hi"), 1))
    numbers: dict[str, Value] = {}
    with serving(run, config) as url, ExitStack() as stack:
        serve = FrontProxy(httpx.URL(url).port or 0, None)
        fronts = {"serve": serve}
        if NGINX is not None:
            fronts["nginx"] = stack.enter_context(start_nginx(on_machines(), folder, serve.port))
        for name, front in fronts.items():
            for size in plan.header_mib:
                numbers[f"{name}_header_{size}_mib"] = _measure_header(front, size)
            numbers[f"{name}_half_sent_bodies"] = _measure_half_sent(front, plan)
    return numbers


def _measure_header(front: FrontProxy, mib: int) -> dict[str, Value]:
    before = {process.pid for _, process in list_processes(Role.PROXY)}
    sent: dict[str, Value] = {}
    attack = threading.Thread(target=lambda: sent.update(_send_header(front, mib)))
    started = time.monotonic()
    attack.start()
    with _client(front) as client:
        latencies = list(_ask_while(attack.is_alive, lambda: client.get("/healthz")))
    attack.join()
    after = {process.pid for _, process in list_processes(Role.PROXY)}
    return {**sent, "seconds": time.monotonic() - started, "proxy_killed": before != after, **_summarize(latencies)}


def _send_header(front: FrontProxy, mib: int) -> dict[str, Value]:
    """Send one header line until it is complete or refused. Status 0: the connection was closed."""
    part, sent, answer = b"a" * _MIB, 0, b""
    with front.open() as connection:
        connection.settimeout(_ATTACK_LIMIT_S)
        try:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            for _ in range(mib):
                connection.sendall(part)
                sent += 1
            connection.sendall(b"\r\nConnection: close\r\n\r\n")
        except (OSError, ssl.SSLError):
            pass  # refused
        with suppress(OSError, ssl.SSLError):
            answer = connection.recv(12)
    return {"sent_mib": sent, "status": int(answer[9:12] or 0)}


def _measure_half_sent(front: FrontProxy, plan: AttackPlan) -> dict[str, Value]:
    head = f"POST {_CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    with ExitStack() as stack:
        held: list[socket.socket] = []
        for _ in range(plan.half_sent):
            connection = stack.enter_context(front.open())
            connection.sendall(head.encode())
            held.append(connection)
        time.sleep(1.0)  # until the last one has reached the service
        left = iter(range(plan.honest))
        with _client(front) as client:
            latencies = list(_ask_while(lambda: next(left, None) is not None, lambda: client.post(_CHAT, json=_BODY)))
    return {"held": len(held), **_summarize(latencies)}


@contextmanager
def _client(front: FrontProxy) -> Iterator[httpx.Client]:
    verify: Any = front.context or False
    headers = {"host": "localhost"}  # a service at a loopback address without keys accepts no other name
    transport = httpx.HTTPTransport(verify=verify, local_address=_HONEST_ADDRESS)
    with httpx.Client(base_url=front.url, transport=transport, headers=headers, timeout=_HONEST_TIMEOUT_S) as client:
        yield client


def _ask_while(condition: Callable[[], bool], ask: Callable[[], httpx.Response]) -> Iterator[float | None]:
    """Seconds of each honest request; None if it failed. At least one request."""
    while True:
        again, started = condition(), time.monotonic()
        try:
            answered = ask().status_code == 200
        except httpx.HTTPError:
            answered = False
        yield time.monotonic() - started if answered else None
        if not again:
            return
        time.sleep(_PAUSE_S)


def _summarize(latencies: Sequence[float | None]) -> dict[str, Value]:
    answered = [1000 * each for each in latencies if each is not None]
    counts: dict[str, Value] = {"honest": len(latencies), "failed": len(latencies) - len(answered)}
    percentiles = (("p50", 50), ("p95", 95), ("max", 100)) if answered else ()
    return {**counts, **{f"ms_{name}": float(np.percentile(answered, q)) for name, q in percentiles}}


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = parser(__doc__ or "").parse_args(argv)
    plan = SMALL if arguments.small else AttackPlan()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(Path(folder), plan)
    parsed = os.environ.get("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "compass-ray's own")
    settings: dict[str, Value] = {
        "half_sent": plan.half_sent,
        "honest": plan.honest,
        "honest_timeout_s": _HONEST_TIMEOUT_S,
        "callback": parsed,
    }
    return write_record("speed/serving_attacks", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
