"""What `zest status` prints: the seeder's status as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

from zest_hf.terminal import columns, duration_text, printable, size_text

PEERS_SHOWN: Final = 10


def is_status(value: Any) -> bool:
    """Whether it is a seeder that has said this."""
    try:
        for _ in lines(value, None):
            pass
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return False
    return True


def lines(status: dict[str, Any], width: int | None) -> Iterator[str]:
    """``width``: of the terminal; None: lines may have any length. Names are anybody's, and the seeder may be."""
    status = _printable(status)
    yield from _wrapped(_sentences(status), width)
    for table in (_traffic(status, width), _models(status, width), _pulls(status, width), _peers(status, width)):
        rows = list(table)
        if rows:
            yield ""
            yield from rows
    problems = list(_problems(status))
    if problems:
        yield ""
        yield from _wrapped(problems, width)


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def _wrapped(sentences: Iterable[str], width: int | None) -> Iterator[str]:
    for sentence in sentences:
        yield from [sentence] if width is None else textwrap.wrap(sentence, width)


def _sentences(status: dict[str, Any]) -> Iterator[str]:
    rates = status["rates"]
    yield f"zest-seed {status['version']} on {status['listen']}, up {duration_text(status['uptime_seconds'])}"
    up, down = (f"{size_text(rates[key])}/s" for key in ("up_bytes_s", "down_bytes_s"))
    yield f"{status['peers_connected']} peers connected, {up} sent, {down} received"
    if status.get("uploads", {}).get("paused"):
        yield "these are quiet hours: nothing is uploaded"
    yield f"peers are found by: {', '.join(_ways(status['discovery'])) or 'nothing'}"


def _traffic(status: dict[str, Any], width: int | None) -> Iterator[str]:
    rows = []
    parts = {"this run": status["bytes"], **status.get("traffic", {})}
    for name, count in parts.items():
        taken = count["peer"] + count["cdn"]
        cells = (size_text(count[key]) for key in ("peer", "cdn", "local", "uploaded"))
        rows.append((name.replace("_", " "), *cells, f"{count['uploaded'] / taken:.2f}" if taken else "-"))
    head = ("bytes", "from peers", "from the CDN", "from this machine", "uploaded", "ratio")
    return columns(head, rows, width, first_to_go=(3, 2, 1, 5))


def _models(status: dict[str, Any], width: int | None) -> Iterator[str]:
    rows = [
        (
            _name(model),
            str(int(model["files"])),
            size_text(model["size"]),
            size_text(model["uploaded"]),
            str(int(model["peers"])),
        )
        for model in sorted(status["models"], key=lambda model: (-int(model["uploaded"]), str(model["repo"])))
    ]
    return columns(("repository", "files", "size", "uploaded", "peers"), rows, width, (1, 4, 2)) if rows else iter(())


def _pulls(status: dict[str, Any], width: int | None) -> Iterator[str]:
    rows = []
    for pull in status.get("pulls", ()):
        if pull["state"] == "running":
            done, size = pull.get("done", 0), pull.get("size")
            count = pull["bytes"]
            cells = (size_text(count[key]) for key in ("peer", "cdn", "local"))
            rows.append((_name(pull), f"{100 * done // size} %" if size else "-", *cells))
    head = ("download", "done", "from peers", "from the CDN", "from this machine")
    return columns(head, rows, width, first_to_go=(4, 3, 2)) if rows else iter(())


def _peers(status: dict[str, Any], width: int | None) -> Iterator[str]:
    peers = sorted(status["peers"], key=lambda peer: -int(peer["bytes_up"]))
    if not peers:
        return
    rows = [
        (
            f"{peer['address']} {peer['client']}",
            peer["found_by"],
            _part(peer.get("holds")),
            f"{size_text(peer.get('up_bytes_s', 0))}/s",
            size_text(peer["bytes_up"]),
            size_text(peer["bytes_down"]),
        )
        for peer in peers[:PEERS_SHOWN]
    ]
    yield from columns(("peer", "found by", "has", "rate", "sent to it", "received"), rows, width, (1, 5, 3, 2))
    if len(peers) > PEERS_SHOWN:
        yield f"and {len(peers) - PEERS_SHOWN} more"


def _part(share: float | None) -> str:
    """Rounded down: what is all but complete is not complete."""
    return "-" if share is None else f"{int(100 * share)} %"


def _problems(status: dict[str, Any]) -> Iterator[str]:
    for tracker in status["discovery"]["trackers"]:
        if tracker["working"] is False:
            yield f"tracker {tracker['url']} does not work: {tracker['message']}"
    for ban in status["banned"]:
        yield f"banned {ban['address']}: {ban['reason']}"


def _name(model: dict[str, Any]) -> str:
    kind = model["repo_type"]
    return str(model["repo"]) if kind == "model" else f"{kind}s/{model['repo']}"


def _ways(discovery: dict[str, Any]) -> Iterator[str]:
    if discovery["given"]:
        yield f"{len(discovery['given'])} given"
    if discovery["lsd"]:
        yield "the local network"
    if discovery["dht"]:
        yield f"the DHT ({discovery['dht_nodes']} nodes)"
    yield from (tracker["url"] for tracker in discovery["trackers"])
