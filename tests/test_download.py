"""One file through the engine from a real Hub, and everything that can go wrong between the two."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from downloads import Publisher, StoredFile, Watch, engine, fetch, tiny_chunks, within, xorb
from loopback_http import answer, running
from machines import eventually

from zest_hf.cas import CasToken
from zest_hf.core.ids import ZERO_HASH, hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.download import RepoRef
from zest_hf.engine import Engine
from zest_hf.errors import (
    CasError,
    CasForbidden,
    CasNotFound,
    CasRangeError,
    CasUnauthorized,
    CasUnavailable,
    ProofError,
    ReconstructionError,
    UrlExpired,
    ZestError,
)
from zest_hf.hub.process import HubProcess

# Longer than any fault lasts: timeouts of 0.4 s, retries for 1 s.
BOUND_S = 8.0


@pytest.fixture(scope="module")
def publisher(running_hub: HubProcess) -> Publisher:
    return Publisher(running_hub.endpoint, "org/download")


@pytest.fixture(scope="module")
def stored(publisher: Publisher) -> StoredFile:
    """1.5 MB: all of a xorb, parts of another one, and the first again."""
    one, two = xorb("one", 600_000), xorb("two", 500_000)
    return publisher.put(one, (two, 1, 3), (two, 4, 6), one)


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    """An engine without peers."""
    with engine(tmp_path / "home") as one:
        yield one


# --- shapes -------------------------------------------------------------------------------------------


def test_a_file_of_many_parts(alone: Engine, local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    result = fetch(alone, stored, tmp_path / "file")
    assert result.bytes_cdn == len(stored.content)
    assert [(term.start, term.end) for term in result.terms][1:3] == [(1, 3), (4, 6)]
    # The xorb that occurs twice came once.
    assert local_hub.stats()["cdn_bytes"] < 1_000_000
    status = alone.status()["bytes"]
    assert (status["cdn"], status["total"]) == (len(stored.content), len(stored.content))


@pytest.mark.parametrize("size", [1, 7000, 65536])
def test_a_file_of_one_chunk(alone: Engine, publisher: Publisher, tmp_path: Path, size: int) -> None:
    file = publisher.put(tiny_chunks(f"one chunk {size}", 1, size))
    assert fetch(alone, file, tmp_path / "file").size_bytes == size


def test_a_file_of_many_small_chunks(alone: Engine, publisher: Publisher, tmp_path: Path) -> None:
    fetch(alone, publisher.put(tiny_chunks("many", 3000, 100)), tmp_path / "file")


def test_an_empty_file(alone: Engine, stored: StoredFile, tmp_path: Path) -> None:
    request = stored.request(tmp_path / "file", file_hash=ZERO_HASH, size_bytes=0)
    assert alone.download(request, Watch()).size_bytes == 0
    assert (tmp_path / "file").read_bytes() == b""
    with pytest.raises(ReconstructionError):
        alone.download(replace(request, size_bytes=5), Watch())


def test_a_file_that_shares_xorbs_with_another(
    alone: Engine, publisher: Publisher, stored: StoredFile, tmp_path: Path
) -> None:
    base, change = stored.parts[0][0], xorb("change", 200_000)
    for number in range(2):
        fetch(alone, publisher.put(change, (base, 2, 7)), tmp_path / f"file{number}")


def test_without_a_known_size(alone: Engine, stored: StoredFile, tmp_path: Path) -> None:
    fetch(alone, stored, tmp_path / "file", size_bytes=None)


def test_progress_is_told_while_bytes_come_slowly(
    alone: Engine, local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    local_hub.fault("cdn", "rate", bytes_per_second=2_000_000)
    watch = Watch()
    fetch(alone, stored, tmp_path / "file", watch)
    assert len({done for done, _, _ in watch.seen if 0 < done < len(stored.content)}) >= 2
    # The hub counts a block when its send has returned, which may be after we have read it.
    eventually(lambda: watch.seen[-1][2] == local_hub.stats()["cdn_bytes"], "the hub's count is ours")


# --- faults that are overcome -------------------------------------------------------------------------

Fault = tuple[str, str, dict[str, Any]]


@pytest.mark.parametrize(
    "fault",
    [
        ("cdn", "status", {"status": 503, "times": 3}),
        ("cdn", "status", {"status": 500, "times": 2}),
        ("cdn", "status", {"status": 429, "times": 2, "retry_after": 0}),
        ("cdn", "expire", {"times": 2}),
        ("cdn", "truncate", {"after_bytes": 70_000, "times": 4}),
        ("cdn", "truncate", {"after_bytes": 0, "times": 2}),
        ("cdn", "corrupt", {"offset": 100, "times": 1}),
        ("cdn", "corrupt", {"offset": 200_000, "times": 1}),
        ("cdn", "corrupt", {"offset": 0, "times": 2}),
        ("cdn", "stall", {"after_bytes": 50_000, "times": 2}),
        ("cdn", "latency", {"seconds": 0.2}),
        ("cas", "status", {"status": 503, "times": 2}),
        ("cas", "expire", {"times": 1}),
        ("cas", "truncate", {"after_bytes": 20, "times": 1}),
        ("cas", "stall", {"after_bytes": 20, "times": 1}),
    ],
    ids=lambda fault: f"{fault[0]} {fault[1]} {sorted(fault[2].items())[0][1]}",
)
def test_a_fault_that_passes(
    alone: Engine, local_hub: HubProcess, stored: StoredFile, tmp_path: Path, fault: Fault
) -> None:
    route, kind, parameters = fault
    local_hub.fault(route, kind, **parameters)
    with within(BOUND_S):
        fetch(alone, stored, tmp_path / "file")


@pytest.mark.parametrize("option", ["no_v2", "redirect_cdn", "exact_ranges", "multi_range"])
def test_a_hub_of_another_kind(tmp_path: Path, option: str) -> None:
    with HubProcess(tmp_path / "hub", **{option: True}) as hub, engine(tmp_path / "home") as one:
        two = xorb("two", 500_000)
        file = Publisher(hub.endpoint).put(xorb("one", 600_000), (two, 1, 3), (two, 4, 6))
        if option == "exact_ranges":
            # What is left of a range is another range: the url is not signed for that one.
            hub.fault("cdn", "truncate", after_bytes=100_000, times=1)
        fetch(one, file, tmp_path / "file")


@pytest.mark.parametrize("exact_ranges", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_connection_that_is_much_slower_than_others_is_replaced(
    tmp_path: Path, exact_ranges: bool, is_last: bool
) -> None:
    """It would take minutes. What others have got is remembered when it is the last; an url may be good for all of a
    range only.
    """
    with HubProcess(tmp_path / "hub", exact_ranges=exact_ranges) as hub, engine(tmp_path / "home") as one:
        one.policy = replace(one.policy, slow_get_s=0.5)
        xorbs = [xorb(f"one of {number}", 600_000) for number in range(10)]
        file = Publisher(hub.endpoint).put(*xorbs)
        slow = xorbs[-1 if is_last else 0]
        match = hash_to_text(Manifest(slow.hashes, slow.lengths).xorb_hash())
        hub.fault("cdn", "pace", bytes_per_second=4_000, times=1, match=match)
        hub.fault("cdn", "pace", bytes_per_second=3_000_000)
        with within(BOUND_S):
            fetch(one, file, tmp_path / "file")
        # Asked for again from where it was, which may be refused.
        assert hub.stats()["cdn_requests"] == 11 + exact_ranges


# --- faults that are not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (("cdn", "corrupt", {"offset": 200_000}), ProofError),
        (("cdn", "status", {"status": 503}), CasUnavailable),
        (("cdn", "status", {"status": 404}), CasNotFound),
        (("cdn", "status", {"status": 418}), CasError),
        (("cdn", "expire", {}), UrlExpired),
        (("cdn", "stall", {"after_bytes": 0}), CasUnavailable),
        (("cdn", "truncate", {"after_bytes": 0}), CasUnavailable),
        (("cdn", "garbage", {}), CasUnavailable),
        (("cas", "garbage", {}), ReconstructionError),
        (("cas", "status", {"status": 403}), CasForbidden),
        (("cas", "status", {"status": 404}), CasNotFound),
        (("cas", "status", {"status": 416}), CasRangeError),
        (("cas", "status", {"status": 500}), CasUnavailable),
        (("cas", "status", {"status": 503, "retry_after": 3000}), CasUnavailable),
        (("cas", "expire", {}), CasUnauthorized),
        (("cas", "stall", {}), CasUnavailable),
    ],
    ids=lambda value: f"{value[0]} {value[1]} {list(value[2].values())}" if isinstance(value, tuple) else "",
)
def test_a_fault_that_stays_ends_in_its_error_and_nothing_writes_any_more(
    alone: Engine,
    local_hub: HubProcess,
    stored: StoredFile,
    tmp_path: Path,
    fault: Fault,
    error: type[ZestError],
) -> None:
    route, kind, parameters = fault
    local_hub.fault(route, kind, **parameters)
    path = tmp_path / "file"
    with within(BOUND_S), pytest.raises(error):
        alone.download(stored.request(path), Watch())
    path.write_bytes(b"the next owner's")
    local_hub.clear_faults()
    # Whatever still ran there would be done before this.
    fetch(alone, stored, tmp_path / "other")
    assert path.read_bytes() == b"the next owner's"


def test_another_size_than_the_hub_says(alone: Engine, stored: StoredFile, tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match="for a file of"):
        alone.download(stored.request(tmp_path / "file", size_bytes=len(stored.content) + 1), Watch())


def _lengthen_the_first(plan: Any) -> None:
    plan["terms"][0]["unpacked_length"] += 10
    plan["terms"][1]["unpacked_length"] -= 10


def _swap(plan: Any) -> None:
    plan["terms"][0], plan["terms"][1] = plan["terms"][1], plan["terms"][0]


def _another_part(plan: Any) -> None:
    plan["terms"][2]["range"] = plan["terms"][1]["range"]
    plan["terms"][2]["unpacked_length"] = plan["terms"][1]["unpacked_length"]


@pytest.mark.parametrize("lie", [_lengthen_the_first, _swap, _another_part])
def test_a_cas_that_lies(
    alone: Engine, stored: StoredFile, tmp_path: Path, lie: Callable[[Any], None]
) -> None:
    route = f"/v2/reconstructions/{hash_to_text(stored.file_hash)}"
    token = stored.token()
    plan = requests.get(token.url + route, headers={"Authorization": f"Bearer {token.token}"}, timeout=5).json()
    lie(plan)
    with running() as cas:
        cas.on(route, answer(200, json.dumps(plan).encode()))
        request = stored.request(
            tmp_path / "file",
            size_bytes=None,
            token_provider=lambda force: CasToken(cas.url, "any", token.expires_at_s),
        )
        with within(BOUND_S), pytest.raises((ReconstructionError, ProofError)):
            alone.download(request, Watch())


def test_a_token_provider_that_fails(alone: Engine, stored: StoredFile, tmp_path: Path) -> None:
    def fails(force: bool) -> CasToken:
        raise CasForbidden("not for you")

    with pytest.raises(CasForbidden, match="not for you"):
        alone.download(stored.request(tmp_path / "file", token_provider=fails), Watch())


# --- the disk -----------------------------------------------------------------------------------------


def test_a_full_disk(alone: Engine, stored: StoredFile, tmp_path: Path) -> None:
    with within(BOUND_S), pytest.raises(OSError) as caught:
        alone.download(replace(stored.request(tmp_path / "unused"), path=Path("/dev/full")), Watch())
    assert caught.value.errno == errno.ENOSPC


def test_a_file_size_limit(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    script = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from downloads import StoredFile, Watch, engine, Publisher, xorb
file = Publisher({local_hub.endpoint!r}, "org/limit").put(xorb("one", 600_000))
with engine(Path({str(tmp_path)!r}) / "home") as one:
    one.index()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        one.download(file.request(Path({str(tmp_path)!r}) / "file"), Watch())
    except OSError as error:
        print("OSError", error.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["OSError", str(errno.EFBIG)], done.stderr


@pytest.mark.parametrize("path", ["", "missing/file"])
def test_a_path_that_cannot_be_written(alone: Engine, stored: StoredFile, tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError):
        alone.download(stored.request(tmp_path / path), Watch())


@pytest.mark.parametrize("xorbs", [1, 3])
def test_a_peer_that_turns_up_while_the_cdn_is_at_work(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path, xorbs: int
) -> None:
    """It gives the rest; each byte of the file has come once, and is counted once."""
    file = publisher.put(*(xorb(f"late {xorbs} {number}", 24_000_000 // xorbs) for number in range(xorbs)))
    with engine(tmp_path / "owner") as owner:
        path = tmp_path / "held"
        owner.record(fetch(owner, file, path), path, RepoRef(file.endpoint, "model", file.repo), True)
        known = owner.swarm()
        assert known is not None
        local_hub.fault("cdn", "rate", bytes_per_second=2_000_000 / xorbs)
        local_hub.reset_stats()
        with engine(tmp_path / "home", [known.port]) as late:
            late.policy = replace(late.policy, permission_patience_s=0.0)
            watch = Watch()
            with within(6.0):
                result = fetch(
                    late, file, tmp_path / "file", watch, is_public=lambda: watch.reached.wait(BOUND_S)
                )
            assert late.status()["bytes"]["total"] == len(file.content)
    assert result.bytes_cdn > 0
    assert result.bytes_peer > 0.8 * len(file.content)
    # What is on its way when a connection is closed is lost.
    assert result.bytes_cdn <= local_hub.stats()["cdn_bytes"] + 1_000_000
    assert local_hub.stats()["cdn_bytes"] <= result.bytes_cdn + 3_000_000


def test_no_descriptor_is_left_open(
    alone: Engine, local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    fetch(alone, stored, tmp_path / "first")
    path = tmp_path / "file"
    local_hub.fault("cdn", "status", status=404)
    with pytest.raises(CasNotFound):
        alone.download(stored.request(path), Watch())
    local_hub.clear_faults()
    fetch(alone, stored, path)
    open_paths = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            open_paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    assert str(path) not in open_paths
