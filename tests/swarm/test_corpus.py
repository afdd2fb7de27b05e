"""The fuzzer's corpus of messages, sent to a session that offers nothing and has asked nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Node
from swarm.wire_peer import WirePeer

CORPUS = Path(__file__).parents[2] / "native/fuzz/wire_corpus"


def test_the_corpus() -> None:
    files = sorted(CORPUS.iterdir())
    assert len(files) > 20
    with Node() as node:
        for path in files:
            content = path.read_bytes()
            with WirePeer.dial(node.port) as peer:
                peer.send_raw(peer.frame("zest_hf1" if content[0] else "ut_xet", content[1:]))
                if not path.name.startswith("question-"):
                    try:
                        peer.wait_until_hung_up()
                    except TimeoutError:
                        pytest.fail(f"{path.name}: the connection stays")
                    continue
                peer.send_zest(wire.have_request(99, wire.FILE, bytes(20)))
                while peer.receive()[1] != wire.have(99, wire.NOT_FOUND, 0, []):
                    pass
        node.until(lambda: not node.session.peers())
