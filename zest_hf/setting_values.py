"""Text forms of setting values: booleans, rates, addresses, lists.

Every function takes the stripped, non-empty text of one setting and returns its value, or raises `Rejected`,
whose message says what is accepted. No function looks at the environment or at a file.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from fractions import Fraction
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from zest_hf.errors import ConfigError


class Rejected(ConfigError):
    """The text is no value of its setting; the message says what would be."""


class HostPort(NamedTuple):
    """A host name or IP address (IPv6 without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN: Final = HostPort("0.0.0.0", 6881)
DEFAULT_STATUS: Final = HostPort("127.0.0.1", 9847)
DEFAULT_LOG_LEVEL: Final = logging.WARNING

MAX_LIST_ITEMS: Final = 1024
MAX_RATE_BYTES_S: Final = 10**15
MAX_DURATION_S: Final = 10 * 366 * 86400
DEFAULT_IDLE_EXIT_S: Final = 24 * 3600.0

_TRUE: Final = frozenset({"1", "on", "true", "yes"})
_FALSE: Final = frozenset({"0", "off", "false", "no"})
_UNITS: Final = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("kmgt", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("kmgt", 1)},
}
_RATE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?i?)b?(?:/s)?", re.IGNORECASE)
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(s|m|min|h|d)", re.IGNORECASE)
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LOG_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def boolean(text: str) -> bool:
    """on, 1, true, yes or off, 0, false, no in any case."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise Rejected("accepted is on or off (also 1/0, true/false, yes/no)")


def rate(text: str) -> int:
    """Bytes per second: "10MB" is 10^7, "10MiB" 10 * 2^20, a bare number bytes; fractions allowed.

    Case does not matter, so "10Mb" means megabytes too.
    """
    match = _RATE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    size = int(Fraction(match[1]) * unit) if match and unit else 0
    if not 1 <= size <= MAX_RATE_BYTES_S:
        raise Rejected(
            "accepted are bytes per second such as 500KB, 1.5 GB or 64MiB; leave it unset for no cap"
        )
    return size


def host_port(text: str, *, lowest_port: int = 1) -> HostPort:
    """`host:port`, IPv6 addresses in brackets."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        valid = _is_ipv6(host)
    elif ":" in host:
        raise Rejected("accepted is host:port with IPv6 addresses in brackets, such as [::1]:6881")
    else:
        valid = _HOST_NAME.fullmatch(host) is not None
    if not (separator and valid and _PORT.fullmatch(port) and lowest_port <= int(port) <= 65535):
        ports = f"{lowest_port}..65535"
        raise Rejected(f"accepted is host:port with a port in {ports}, such as 10.0.0.7:6881 or [::1]:6881")
    return HostPort(host, int(port))


def host_ports(text: str) -> tuple[HostPort, ...]:
    """`host:port,...`; order is kept, repetitions are dropped."""
    return tuple(dict.fromkeys(host_port(item) for item in items(text)))


def listen(text: str) -> HostPort:
    """`host:port` or a bare port on all IPv4 addresses; port 0 lets the system choose."""
    return _host_port_or_port(text, DEFAULT_LISTEN.host)


def status(text: str) -> HostPort | None:
    """`host:port`, a bare port on loopback, or a word for off."""
    if text != "0" and text.lower() in _FALSE:
        return None
    try:
        return _host_port_or_port(text, DEFAULT_STATUS.host)
    except Rejected as error:
        raise Rejected(f"{error}, or off") from None


def trackers(text: str) -> tuple[str, ...]:
    """http, https or udp urls separated by commas or spaces; order is kept, repetitions are dropped."""
    urls = tuple(dict.fromkeys(items(text)))
    if not all(_is_tracker(url) for url in urls):
        raise Rejected("accepted are http://, https:// or udp:// urls separated by commas")
    return urls


def daemon(text: str) -> str:
    """ "auto" or "off" (also the other words for off)."""
    word = text.lower()
    if word == "auto":
        return word
    if word in _FALSE:
        return "off"
    raise Rejected("accepted is auto or off")


def duration(text: str) -> float | None:
    """Seconds: "90s", "30min", "12h", "2d", fractions allowed; None for a word for off."""
    if text.lower() in _FALSE:
        return None
    match = _DURATION.fullmatch(text)
    seconds = float(Fraction(match[1]) * _SECONDS[match[2].lower()]) if match else 0.0
    if not 1 <= seconds <= MAX_DURATION_S:
        raise Rejected("accepted are times such as 30min, 12h or 2d, or off")
    return seconds


def log_level(text: str) -> int:
    """A level name of the standard library's logging, or its number."""
    level = _LOG_LEVELS.get(text.lower())
    if level is None and text.isascii() and text.isdigit() and len(text) <= 2:
        level = int(text)
    if level is None:
        raise Rejected("accepted is debug, info, warning, error or critical")
    return level


def _host_port_or_port(text: str, default_host: str) -> HostPort:
    return host_port(f"{default_host}:{text}" if _PORT.fullmatch(text) else text, lowest_port=0)


def items(text: str) -> list[str]:
    """The entries of a list, which commas or spaces separate."""
    items = text.replace(",", " ").split()
    if len(items) > MAX_LIST_ITEMS:
        raise Rejected(f"accepted are at most {MAX_LIST_ITEMS} entries")
    return items


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_tracker(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https", "udp"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
