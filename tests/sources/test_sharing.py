"""Downloads that give to each other: by xorbs, and while they run. Real engines, sessions and a Hub."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from downloads import Publisher, StoredFile, Watch, engine, fetch, tiny_chunks, xorb
from machines import eventually

from zest_hf.core.ids import hash_to_text
from zest_hf.download import RepoRef
from zest_hf.engine import Engine
from zest_hf.hub.process import HubProcess

BOUND_S = 15.0


@pytest.fixture(scope="module")
def publisher(running_hub: HubProcess) -> Publisher:
    return Publisher(running_hub.endpoint, "org/sharing")


def port_of(one: Engine) -> int:
    swarm = one.swarm()
    assert swarm is not None
    return swarm.port


def hold(one: Engine, file: StoredFile, path: Path) -> None:
    result = fetch(one, file, path)
    one.record(result, path, RepoRef(file.endpoint, "model", file.repo), True)
    assert one.settle(BOUND_S)


@pytest.mark.parametrize("proves_itself", [True, False], ids=["whole xorbs", "parts of xorbs"])
def test_a_fine_tune_takes_its_bases_xorbs_from_who_has_the_base(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path, proves_itself: bool
) -> None:
    """Nobody has the fine-tune, and nobody knows its manifest before it is here."""
    name = f"{proves_itself}"
    shared = [tiny_chunks(f"{name} shared {number}", 100, 4000) for number in range(3)]
    own = [tiny_chunks(f"{name} own {number}", 100, 4000) for number in range(2)]
    base = publisher.put(*shared)
    if proves_itself:
        tuned = publisher.put(own[0], shared[0], own[1], shared[2], shared[1])
        from_base = 300
    else:
        tuned = publisher.put((own[0], 5, 60), (shared[0], 10, 90), own[1], (shared[2], 0, 40), (shared[0], 30, 50))
        from_base = 140
    with engine(tmp_path / "A") as a:
        hold(a, base, tmp_path / "a")
        local_hub.reset_stats()
        with engine(tmp_path / "B", [port_of(a)]) as b:
            result = fetch(b, tuned, tmp_path / "b")
        assert result.bytes_peer == from_base * 4000
        assert result.bytes_cdn == len(tuned.content) - from_base * 4000


def test_leechers_feed_each_other(local_hub: HubProcess, publisher: Publisher, tmp_path: Path) -> None:
    """The seeder's line is short: alone it would have to send the file to each of them."""
    stored = publisher.put(*(tiny_chunks(f"fed {number}", 200, 10_000) for number in range(3)))
    size = len(stored.content)
    with engine(tmp_path / "A", ZEST_MAX_UP="1500kB") as a:
        hold(a, stored, tmp_path / "a")
        local_hub.fault("cdn", "rate", bytes_per_second=1000)
        with engine(tmp_path / "B", [port_of(a)]) as b, engine(tmp_path / "C", [port_of(a), port_of(b)]) as c:
            with ThreadPoolExecutor(2) as pool:
                jobs = [pool.submit(fetch, one, stored, tmp_path / name) for one, name in ((b, "b"), (c, "c"))]
                results = [job.result() for job in jobs]
            assert all(result.bytes_cdn < size / 10 for result in results)
            uploaded = {name: one.status()["bytes"]["uploaded"] for name, one in (("a", a), ("b", b), ("c", c))}
        assert uploaded["b"] + uploaded["c"] > size / 2, uploaded
        assert uploaded["a"] < 1.6 * size, uploaded


def test_what_one_has_from_the_cdn_another_gets_before_the_end(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    """Nobody has the file, so that nobody knows its manifest: xorbs that came whole prove themselves."""
    xorbs = [xorb(f"half {number}", 400_000) for number in range(12)]
    stored = publisher.put(*xorbs)
    with (
        engine(tmp_path / "B", ["1"]) as b,
        engine(tmp_path / "C", [port_of(b)]) as c,
        ThreadPoolExecutor(1) as pool,
    ):
        local_hub.fault("cdn", "rate", bytes_per_second=150_000, match=hash_to_text(xorbs[-1].xorb))
        slow = pool.submit(fetch, b, stored, tmp_path / "b")
        eventually(lambda: b.status().get("xorbs") == 11, "all but the last are offered", BOUND_S)
        early: list[bool] = []
        watch = Watch(lambda: early.append(slow.running()), at_bytes=10 * 400_000)
        result = fetch(c, stored, tmp_path / "c", watch)
        assert early == [True]
        assert result.bytes_peer >= 10 * 400_000
        assert b.status()["bytes"]["uploaded"] == result.bytes_peer
        slow.result()
