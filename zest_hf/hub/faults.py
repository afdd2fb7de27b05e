"""Misbehaviour on request: rules that slow down, break or falsify answers, for tests of clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zest_hf.errors import ProtocolError
from zest_hf.hub.stats import Listener

Kind = Literal["rate", "pace", "latency", "status", "truncate", "corrupt", "stall", "expire", "garbage"]
ROUTES = ("cdn", "cas", "hub", "*")

_HOUR_S = 3600.0
_BURST_S = 0.02
_LARGE = float(1 << 40)
# kind -> parameter -> (type, least, most, default or None when it must be given)
_PARAMETERS: dict[Kind, dict[str, tuple[type, float, float, float | None]]] = {
    "rate": {"bytes_per_second": (float, 1, _LARGE, None)},
    "pace": {"bytes_per_second": (float, 1, _LARGE, None)},
    "latency": {"seconds": (float, 0, _HOUR_S, None)},
    "status": {"status": (int, 200, 599, None), "retry_after": (int, 0, _HOUR_S, -1)},
    "truncate": {"after_bytes": (int, 0, _LARGE, None)},
    "corrupt": {"offset": (int, 0, _LARGE, None)},
    "stall": {"after_bytes": (int, 0, _LARGE, 0)},
    "expire": {},
    "garbage": {},
}
MAX_RULES = 100


class Bucket:
    """A token bucket, of one answer or of all that a listener gives: bytes are reserved in order of arrival.

    Time that passed unused counts for up to ``_BURST_S``, so that late wake-ups do not lower the rate.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at_s = time.monotonic()
        self._lock = threading.Lock()

    @property
    def block_bytes(self) -> int:
        """How much to send at once so that the rate looks even."""
        return max(256, min(256 << 10, int(self._rate / 50)))

    def reserve(self, count: int) -> float:
        """Seconds to wait before ``count`` bytes may be sent."""
        with self._lock:
            now_s = time.monotonic()
            start_s = max(self._free_at_s, now_s - _BURST_S)
            self._free_at_s = start_s + count / self._rate
            return max(0.0, start_s - now_s)


@dataclass
class Rule:
    """One rule; ``remaining`` counts down at every request it is applied to, None never ends."""

    route: str
    kind: Kind
    parameters: dict[str, float]
    match: str
    remaining: int | None
    buckets: dict[Listener, Bucket] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        row = {"route": self.route, "kind": self.kind, **self.parameters, "times": self.remaining}
        return row | ({"match": self.match} if self.match else {})


def parse_rule(value: object) -> Rule:
    """Check one rule; raises ProtocolError with one line that names the field."""
    if not isinstance(value, Mapping):
        raise ProtocolError("a fault rule is a JSON object")
    row = dict(value)
    route = row.pop("route", None)
    kind = row.pop("kind", None)
    match = row.pop("match", "")
    times = row.pop("times", None)
    if route not in ROUTES:
        raise ProtocolError(f"route is {route!r}, accepted are {', '.join(ROUTES)}")
    if not isinstance(kind, str) or kind not in _PARAMETERS:
        raise ProtocolError(f"kind is {kind!r}, accepted are {', '.join(_PARAMETERS)}")
    if not isinstance(match, str):
        raise ProtocolError("match must be text: a part of the request's path")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise ProtocolError(f"times is {times!r}, accepted are null and whole numbers from 1")
    parameters = {}
    for name, (kind_of, least, most, default) in _PARAMETERS[kind].items():
        number = row.pop(name, default)
        if number is None:
            raise ProtocolError(f"a {kind} rule needs {name}")
        wrong_type = isinstance(number, bool) or not isinstance(number, (int, kind_of))
        if wrong_type or (number != default and not least <= number <= most):
            raise ProtocolError(f"{name} is {number!r}, accepted are numbers from {least:g} to {most:g}")
        if number != -1:
            parameters[name] = number
    if row:
        raise ProtocolError(f"a {kind} rule has no field {next(iter(row))!r}")
    return Rule(route, kind, parameters, match, times)


class Faults:
    """The rules in force. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, rules: list[Rule]) -> None:
        with self._lock:
            if len(self._rules) + len(rules) > MAX_RULES:
                raise ProtocolError(f"at most {MAX_RULES} fault rules can be in force")
            self._rules += rules

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def to_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [rule.to_json() for rule in self._rules]

    def take(self, listener: Listener, path: str) -> list[Rule]:
        """The rules for one request, each counted as used."""
        if not self._rules:
            return []
        taken = []
        with self._lock:
            for rule in self._rules:
                if rule.remaining != 0 and rule.route in (listener, "*") and rule.match in path:
                    if rule.remaining is not None:
                        rule.remaining -= 1
                    taken.append(rule)
        return taken

    def give_back(self, rule: Rule) -> None:
        """The rule turned out not to concern the request (a corruption outside the range that was asked)."""
        with self._lock:
            if rule.remaining is not None:
                rule.remaining += 1

    def bucket(self, rule: Rule, listener: Listener) -> Bucket:
        with self._lock:
            if listener not in rule.buckets:
                rule.buckets[listener] = Bucket(rule.parameters["bytes_per_second"])
            return rule.buckets[listener]
