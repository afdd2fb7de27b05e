"""`GET /metrics`: the status in Prometheus' text format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from zest_hf.seed.status import Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger("zest_hf.seed")

MAX_MODELS: Final = 1000
"""Time series are kept for long by who collects them: of more repositories only those that were taken most."""


class Metrics:
    """May be asked by any thread. prometheus_client is loaded by the first who asks."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._registry: Any = None

    @property
    def media_type(self) -> str:
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        return CONTENT_TYPE_LATEST

    def text(self) -> bytes:
        """Raises SwarmError once the swarm is closed."""
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import generate_latest

        if self._registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            registry.register(_Collector(self._status))
            self._registry = registry
        return generate_latest(self._registry)


class _Collector:
    def __init__(self, status: Status) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing is asked for at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        report = self._status.report()
        info = {"version": report["version"], "node_id": report["node_id"]}
        yield InfoMetricFamily("zest_seed", "The seeder.", value=info)
        since_start, all_time = report["bytes"], report["traffic"]["all_time"]
        gauges = {
            "zest_ready": ("Whether everything of the index is offered.", report["ready"]),
            "zest_uptime_seconds": ("Since the seeder was started.", report["uptime_seconds"]),
            "zest_offered_files": ("Files that are offered to peers.", report["files"]),
            "zest_offered_xorbs": ("Xorbs that are offered to peers.", report["xorbs"]),
            "zest_offered_bytes": ("Size of the files that are offered.", report["size"]),
            "zest_dht_nodes": ("Nodes in the routing tables of the DHT.", report["discovery"]["dht_nodes"]),
            "zest_banned_peers": ("Peers that sent provably wrong bytes.", len(report["banned"])),
        }
        for name, (what, value) in gauges.items():
            yield GaugeMetricFamily(name, what, value=float(value))
        counters = {
            "zest_uploaded_bytes": ("File bytes that peers got from this seeder.", since_start["uploaded"]),
            "zest_wrong_chunks": ("Chunks of peers that were provably wrong.", report["chunks_wrong"]),
        }
        for name, (what, value) in counters.items():
            yield CounterMetricFamily(name, what, value=float(value))
        peers = GaugeMetricFamily("zest_peers", "Connected peers by how they were found.", labels=["found_by"])
        for found_by, number in sorted(Counter(peer["found_by"] for peer in report["peers"]).items()):
            peers.add_metric([found_by], number)
        yield peers
        came = CounterMetricFamily(
            "zest_downloaded_bytes",
            "File bytes that programs of this ZEST_HOME got, of all time, by where they came from.",
            labels=["source"],
        )
        for source in ("local", "peer", "cdn"):
            came.add_metric([source], all_time[source])
        yield came
        trackers = GaugeMetricFamily("zest_tracker_working", "Whether a tracker answered last.", labels=["url"])
        for tracker in report["discovery"]["trackers"]:
            if tracker["working"] is not None:
                trackers.add_metric([tracker["url"]], float(tracker["working"]))
        yield trackers
        yield from _of_models(report["models"])


def _of_models(models: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["repo", "repo_type", "endpoint"]
    size = GaugeMetricFamily("zest_model_bytes", "Size of what is offered of a repository.", labels=labels)
    peers = GaugeMetricFamily("zest_model_peers", "Connected peers that have taken from it.", labels=labels)
    uploaded = CounterMetricFamily("zest_model_uploaded_bytes", "File bytes that peers got of it.", labels=labels)
    for model in sorted(models, key=lambda model: -int(model["uploaded"]))[:MAX_MODELS]:
        values = [str(model[label]) for label in labels]
        size.add_metric(values, model["size"])
        peers.add_metric(values, model["peers"])
        uploaded.add_metric(values, model["uploaded"])
    yield from (size, peers, uploaded)
