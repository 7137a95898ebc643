"""Bytes over a socket, for requests that HTTP clients do not send."""

from __future__ import annotations

import socket
import ssl

_TIMEOUT_S = 30.0


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send bytes, and return what comes back until the server closes the connection.

    A server that refuses a request may close before it has read all of it. The answer is then lost, and the result is empty.

    Raises:
        TimeoutError: the server keeps the connection open.
    """
    received = b""
    try:
        connection.sendall(request)
        while part := connection.recv(65_536):
            received += part
    except (ConnectionError, ssl.SSLError):
        pass
    return received


def send_raw(host: str, port: int, request: bytes) -> bytes:
    """Exchange bytes over a connection of their own."""
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
        return exchange(connection, request)
