"""Check that automatic updates do not run on an open address where clients are neither known nor limited.

Anyone who reaches such an endpoint can send the prompts that it trains on. Reads settings and the environment only.
"""

from __future__ import annotations

import ipaddress
import os

from compass_ray.config import API_KEYS_VARIABLE, ConfigError, RunConfig
from compass_ray.preflight.check_result import CheckContext, CheckResult

_PROBLEM = "update.auto is on, but clients have no API keys and no rate limit, so anyone can send the prompts of an update"
_REMEDY = (
    f"set serve.api_keys or {API_KEYS_VARIABLE}, or serve.requests_per_minute; to accept it, set update.auto_without_keys=true"
)


def check_automatic_updates(context: CheckContext) -> list[CheckResult]:
    """Fail where automatic updates are open to all; on a loopback address only warn."""
    config = context.config
    if not config.update.auto:
        return []
    if not has_unlimited_updates(config):
        limit = config.update.max_per_day or "any number"
        return [CheckResult("automatic updates", f"on, at most {limit} a day and language that reach the gate")]
    return [CheckResult("automatic updates", _PROBLEM, _REMEDY, blocking=not _is_loopback(config.serve.host))]


def has_unlimited_updates(config: RunConfig) -> bool:
    """Whether automatic updates are on, and clients have neither keys nor a rate limit, which is not accepted."""
    has_keys = bool(config.serve.api_keys) or API_KEYS_VARIABLE in os.environ
    is_limited = has_keys or config.serve.requests_per_minute is not None
    return config.update.auto and not is_limited and not config.update.auto_without_keys


def require_limited_updates(config: RunConfig, host: str | None) -> None:
    """Refuse to serve with unlimited automatic updates on a host that others can reach; None is an unknown host.

    Raises:
        ConfigError: with the ways to continue.
    """
    if has_unlimited_updates(config) and not (host and _is_loopback(host)):
        raise ConfigError(f"{_PROBLEM} (host {host or 'unknown'}). To continue: {_REMEDY}.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
