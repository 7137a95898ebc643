"""Keyed hashes of what a client controls: the client's pseudonym, and the draw that may send a conversation to a canary.

The key is the secret of the run, so every replica computes the same, and no client can compute which conversations a canary
answers. Neither an API key nor an address leaves the ingress.
"""

from __future__ import annotations

import hmac
import ipaddress

_IPV4_PREFIX_BITS = 24
_IPV6_PREFIX_BITS = 64
"""Length of the IPv6 prefix of one household or machine, which chooses the remaining bits freely."""


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


def network_of(address: str, ipv4_bits: int = _IPV4_PREFIX_BITS) -> str:
    """The network of an IPv4 address, of ``ipv4_bits``, or the /64 network of an IPv6 address.

    All texts that are no address are one network, so that no client makes networks of invented texts.

    >>> network_of("192.0.2.77"), network_of("::ffff:192.0.2.1"), network_of("2001:db8::1"), network_of("any text")
    ('192.0.2.0/24', '192.0.2.0/24', '2001:db8::/64', 'no address')
    >>> network_of("192.0.2.77", ipv4_bits=32)
    '192.0.2.77/32'
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "no address"
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    bare = str(parsed).partition("%")[0]  # without the zone of a link-local address
    bits = ipv4_bits if parsed.version == 4 else _IPV6_PREFIX_BITS
    return str(ipaddress.ip_network(f"{bare}/{bits}", strict=False))
