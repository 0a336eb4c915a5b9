"""Requests to this machine go past the proxy that HTTP_PROXY and its like name.

A proxy knows another 127.0.0.1, so every service of `perpetune up` would look dead. NO_PROXY is what httpx, requests,
urllib and aiohttp all read, ours and those inside Prefect, MLflow and the OpenAI client.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

# Some read one name, some the other, and the lower-case one wins.
_NAMES = ("no_proxy", "NO_PROXY")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def no_proxy_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY, in both spellings, with what the environment has in either and the names of this machine."""
    named = [host.strip() for name in _NAMES for host in environment.get(name, "").split(",")]
    hosts = ",".join(dict.fromkeys([*filter(None, named), *_THIS_MACHINE]))
    return dict.fromkeys(_NAMES, hosts)


def spare_this_machine() -> None:
    """Set NO_PROXY for this process and those that it starts."""
    os.environ.update(no_proxy_variables(os.environ))


def is_loopback(host: str | None) -> bool:
    """Whether a host name or an address means this machine."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_on_this_machine(url: str) -> bool:
    """Whether the host of a URL means this machine."""
    try:
        return is_loopback(urlsplit(url).hostname)
    except ValueError:
        return False
