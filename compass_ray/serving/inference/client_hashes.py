"""Keyed hashes of what a client controls: the client's pseudonym, and the draw that may send a conversation to a canary.

The key is the secret of the run, so every replica computes the same, and no client can compute which conversations a canary
answers. Neither an API key nor an address leaves the ingress.
"""

from __future__ import annotations

import hmac
import ipaddress

_PREFIX_BITS = {4: 24, 6: 64}
"""Length of the address prefix that one network shares, by IP version."""


class ClientHashes:
    """The hashes under one secret."""

    def __init__(self, secret: bytes) -> None:
        """``secret`` is from `monitoring.retention.load_secret`."""
        self._secret = secret

    def client(self, key: str | None, address: str) -> str:
        """The pseudonym of an API key, or without one of the network of an address.

        >>> hashes = ClientHashes(b"secret")
        >>> hashes.client(None, "192.0.2.1") == hashes.client(None, "192.0.2.200") != hashes.client("a1b2", "192.0.2.1")
        True
        """
        parts = ("network", network_of(address)) if key is None else ("key", key)
        return self._digest("client", *parts)[:16].hex()

    def draw(self, name: str) -> float:
        """A number in [0, 1), equal for equal names and unknown without the secret.

        >>> ClientHashes(b"secret").draw("one") == ClientHashes(b"secret").draw("one") < 1.0
        True
        """
        return int.from_bytes(self._digest("draw", name)[:6]) / 2**48

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode("utf-8", "surrogatepass"), "sha256")


def network_of(address: str) -> str:
    """The /24 network of an IPv4 address or the /64 network of an IPv6 address; other text as it is.

    >>> network_of("192.0.2.77"), network_of("::ffff:192.0.2.1"), network_of("2001:db8::1"), network_of("unix")
    ('192.0.2.0/24', '192.0.2.0/24', '2001:db8::/64', 'unix')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    bare = str(parsed).partition("%")[0]  # without the zone of a link-local address
    return str(ipaddress.ip_network(f"{bare}/{_PREFIX_BITS[parsed.version]}", strict=False))
