"""IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest

from swarm import namespaces
from swarm.namespaces import Namespace
from swarm.node import Content, Node
from swarm.trackers import HttpTracker
from swarm.wire_peer import bencode, file_swarm
from zest_hf._native.events import Kind, Outcome, PeerReady, Source
from zest_hf.errors import SwarmError

CONTENT = Content.random(10)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError):
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_ipv6_alone(tmp_path: Path) -> None:
    with Node(listen_host="::1") as holder, Node(listen_host="::1") as seeker:
        holder.share(CONTENT, tmp_path / "offered")
        seeker.session.dial("::1", holder.port, 7)
        peer = seeker.wait(PeerReady)
        assert peer.address == f"[::1]:{holder.port}"
        assert seeker.have(peer.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK


@needs_ipv6
def test_both_on_every_address(tmp_path: Path) -> None:
    """One port for IPv4 and IPv6, and one connection for a peer that is reached by both."""
    with Node(listen_host="") as holder, Node(listen_host="") as seeker:
        holder.share(CONTENT, tmp_path / "offered")
        for host in ("127.0.0.1", "::1"):
            seeker.session.dial(host, holder.port, seeker.token())
        peer = seeker.wait(PeerReady)
        seeker.until(lambda: len(seeker.session.peers()) == 1)
        assert seeker.have(peer.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK


@needs_ipv6
def test_a_port_that_is_taken_for_ipv6_only() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SwarmError, match="in use"):
            Node(listen_host="", listen_port=port)
        with Node(listen_host="", listen_port=port, port_retries=20) as node:
            assert node.port != port
        with Node(listen_host="127.0.0.1", listen_port=port) as node:
            assert node.port == port


@needs_ipv6
def test_ipv6_peers_of_a_tracker(tmp_path: Path) -> None:
    """BEP 7."""
    with Node(listen_host="::1") as holder:
        peers6 = socket.inet_pton(socket.AF_INET6, "::1") + holder.port.to_bytes(2, "big")
        with HttpTracker(lambda _: bencode({"interval": 1800, "peers": b"", "peers6": peers6})) as tracker:
            holder.share(CONTENT, tmp_path / "offered")
            # The tracker is asked over IPv4.
            with Node(listen_host="", trackers=[tracker.url]) as seeker:
                seeker.session.join(Kind.FILE, CONTENT.hash, announce=False)
                assert seeker.wait(PeerReady).address == f"[::1]:{holder.port}"
                (info,) = seeker.session.peers()
                assert info.source is Source.TRACKER
                assert tracker.announces[0]["info_hash"] == file_swarm(CONTENT.hash)


WHY_NOT = namespaces.why_not()


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
def test_a_machine_without_ipv6() -> None:
    with namespaces.cable() as (machine, _):
        without_ipv6(machine)
        with machine.entered():
            node = Node(listen_host="")
        with node:
            assert node.port > 0


def without_ipv6(machine: Namespace) -> None:
    subprocess.run(
        ["ip", "netns", "exec", machine.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"],
        check=True,
    )
