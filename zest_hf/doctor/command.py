"""The command line of `zest doctor`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from zest_hf.config import Settings, load_settings
from zest_hf.doctor.finding import Check, Finding, run_all
from zest_hf.setting_values import HostPort
from zest_hf.terminal import BOLD, GREEN, RED, YELLOW, printable, styled

DESCRIPTION = """Shows the settings and where each comes from, and checks what downloads and seeding need. Contacts
nobody but the Hub, the store that it names, and the trackers and names in the settings; announces nothing."""
DEADLINE_S = 10.0
COLOURS = {"ok": GREEN, "note": YELLOW, "wrong": RED, "skipped": "2"}
VARIABLES = {
    "enabled": "HF_HUB_ENABLE_ZEST",
    "home": "ZEST_HOME",
    "listen": "ZEST_LISTEN",
    "peers": "ZEST_PEERS",
    "trackers": "ZEST_TRACKERS",
    "lsd": "ZEST_LSD",
    "dht": "ZEST_DHT",
    "dht_bootstrap": "ZEST_DHT_BOOTSTRAP",
    "swarm_key": "ZEST_SWARM_KEY",
    "max_down_bytes_s": "ZEST_MAX_DOWN",
    "max_up_bytes_s": "ZEST_MAX_UP",
    "seed": "ZEST_SEED",
    "allow": "ZEST_ALLOW",
    "deny": "ZEST_DENY",
    "quiet_hours": "ZEST_QUIET_HOURS",
    "daemon": "ZEST_DAEMON",
    "idle_exit_s": "ZEST_IDLE_EXIT",
    "status": "ZEST_STATUS",
    "strict": "ZEST_STRICT",
    "log_level": "ZEST_LOG",
    "hub_offline": "HF_HUB_OFFLINE",
    "ca_bundle": "REQUESTS_CA_BUNDLE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("--repo", metavar="REPO", help="also check the store behind this repository, such as org/model")
    parser.add_argument("--repo-type", choices=["model", "dataset", "space"], default="model")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 when something is wrong that stops downloads or seeding."""
    settings = load_settings()
    # What the checks find they say themselves.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    logging.getLogger("zest_hf").setLevel(logging.CRITICAL)
    shown = {VARIABLES[name]: (_text(name, getattr(settings, name)), settings.sources[name]) for name in VARIABLES}
    found = run_all(_checks(settings, args.repo, args.repo_type), DEADLINE_S)
    is_well = all(finding.verdict != "wrong" for finding in found.values())
    if args.json:
        out = {
            "ok": is_well,
            "settings": {name: {"value": value, "source": source} for name, (value, source) in shown.items()},
            "checks": {name: asdict(finding) for name, finding in found.items()},
        }
        print(json.dumps(out, indent=2))
    else:
        print("\n".join(_lines(shown, found)))
    return 0 if is_well else 1


def _checks(settings: Settings, repo: str | None, repo_type: str) -> dict[str, Check]:
    from zest_hf.doctor import here, network

    checks: dict[str, Check] = {
        "versions": here.versions,
        "native module": here.native_module,
        "hf_xet": here.hf_xet,
        "hook": here.hook,
        "switch": partial(here.switch, settings),
        "ZEST_HOME": partial(here.home, settings),
        "cache": here.cache,
        "disk": partial(here.disk, settings),
        "seeder": partial(here.seeder, settings),
        "port for peers": partial(here.listen_port, settings),
        "port of the page": partial(here.status_port, settings),
        "Hub": partial(network.hub, settings),
        "token": partial(network.token, settings),
        "CAS": partial(network.cas, settings, repo, repo_type),
        "local network": partial(here.local_network, settings),
        "DHT": partial(network.dht, settings),
    }
    checks |= {f"tracker {url}": partial(network.tracker, url, settings) for url in settings.trackers}
    return checks


def _text(name: str, value: Any) -> str:
    if name == "swarm_key":
        return "none" if value is None else "set"  # never the key
    if name == "log_level":
        return str(logging.getLevelName(value)).lower()
    if name == "listen":
        return str(HostPort(value.host, value.port))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple) and not isinstance(value, HostPort):
        return ",".join(map(str, value)) or "none"
    if value is None:
        return "off" if name in ("status", "idle_exit_s") else "none"
    if name == "idle_exit_s":
        return f"{value / 3600:g}h"
    return str(value)


def _lines(shown: dict[str, tuple[str, str]], found: dict[str, Finding]) -> Iterator[str]:
    yield styled("Settings", BOLD)
    widths = [max(map(len, column)) for column in zip(*((n, v) for n, (v, _) in shown.items()), strict=True)]
    for name, (value, source) in shown.items():
        yield f"  {name.ljust(widths[0])}  {printable(value).ljust(min(widths[1], 40))}  {source}"
    yield ""
    yield styled("Checks", BOLD)
    width = min(max(map(len, found)), 20)
    for name, finding in found.items():
        verdict = styled(finding.verdict.ljust(7), COLOURS[finding.verdict])
        yield f"  {verdict}  {name.ljust(width)}  {printable(finding.text)}"
        if finding.advice:
            yield f"  {'':7}  {'':{width}}  -> {printable(finding.advice)}"
    wrong = [name for name, finding in found.items() if finding.verdict == "wrong"]
    yield ""
    yield f"wrong: {', '.join(wrong)}" if wrong else "Nothing is wrong that stops downloads or seeding."
