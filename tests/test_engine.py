"""What downloads share: peers, counts, the index, and the end of it all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from downloads import Publisher, StoredFile, Watch, engine, fetch, tiny_chunks, within, xorb
from machines import eventually
from swarm import wire_peer as wire
from swarm.node import Content, serve
from swarm.wire_peer import Question, WirePeer, WireServer
from test_index import held_by_another_process

from zest_hf import finished
from zest_hf.core.concurrency import ConcurrencySettings
from zest_hf.core.policy import PolicySettings
from zest_hf.download import DownloadResult, RepoRef
from zest_hf.engine import Engine
from zest_hf.errors import ProofError, ZestError
from zest_hf.finished import MAX_BACKGROUND_JOBS, RECORD_PATIENCE_S
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index, IndexedFile
from zest_hf.resting_index import INDEX_PATIENCE_S
from zest_hf.sources.cdn import BUFFER_BYTES
from zest_hf.traffic import Traffic

BOUND_S = 10.0
REPO = RepoRef("http://hub", "model", "org/one")
OTHER = RepoRef("http://hub", "model", "org/two")


@pytest.fixture(scope="module")
def publisher(running_hub: HubProcess) -> Publisher:
    return Publisher(running_hub.endpoint, "org/engine")


@pytest.fixture(scope="module")
def stored(publisher: Publisher) -> StoredFile:
    """2.4 MB in about 640 chunks, ten pieces, of four xorbs."""
    return publisher.put(*(tiny_chunks(f"part {number}", 160, 3700) for number in range(4)))


def port_of(one: Engine) -> int:
    swarm = one.swarm()
    assert swarm is not None
    return swarm.port


def offer(one: Engine, file: StoredFile, path: Path, *, public: bool = True) -> DownloadResult:
    """Downloads a file and records it, as the hook does."""
    result = fetch(one, file, path)
    one.record(result, path, RepoRef(file.endpoint, "model", file.repo), public)
    assert one.settle(BOUND_S)
    return result


# --- peers --------------------------------------------------------------------------------------------


def test_everything_from_a_peer(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    with engine(tmp_path / "A") as a:
        offer(a, stored, tmp_path / "a")
        local_hub.reset_stats()
        with engine(tmp_path / "B", [port_of(a)]) as b, within(BOUND_S):
            result = fetch(b, stored, tmp_path / "b")
            assert (result.bytes_peer, result.bytes_cdn) == (len(stored.content), 0)
            assert local_hub.stats()["cdn_bytes"] == 0
            assert b.status()["bytes"]["peer"] == len(stored.content)
            assert a.status()["bytes"]["uploaded"] == len(stored.content)
            assert b.status()["peers_connected"] == 1


def test_from_peers_to_a_full_disk(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    with engine(tmp_path / "A") as a:
        offer(a, stored, tmp_path / "a")
        request = stored.request(tmp_path / "b")
        request.path.unlink()
        request.path.symlink_to("/dev/full")
        with engine(tmp_path / "B", [port_of(a)]) as b, within(BOUND_S), pytest.raises(OSError, match="No space"):
            b.download(request, Watch())


def test_a_peer_that_dies_in_the_middle(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    file = publisher.put(*(tiny_chunks(f"long {number}", 160, 6000) for number in range(8)))
    # So slow that a part of it is on its way for a second.
    with engine(tmp_path / "A", ZEST_MAX_UP="4MB") as a:
        offer(a, file, tmp_path / "a")
        local_hub.reset_stats()
        with engine(tmp_path / "B", [port_of(a)]) as b, within(BOUND_S):
            result = fetch(b, file, tmp_path / "b", Watch(then=a.close))
        assert result.bytes_peer > 0
        assert result.bytes_cdn > 0


Lie = Callable[[WirePeer, Content, Question], None]


def _wrong_chunk(peer: WirePeer, content: Content, question: Question) -> None:
    if question.type == wire.RANGE_REQUEST and question.extension != wire.XET_ID:
        right = content.chunks[question.first]
        peer.send_zest(wire.range_data(question.request, question.first, right[:-1] + bytes([right[-1] ^ 1])))
    else:
        serve(peer, content, question)


def _wrong_manifest(peer: WirePeer, content: Content, question: Question) -> None:
    if question.type == wire.MANIFEST_REQUEST and question.extension != wire.XET_ID:
        part = [(bytes(32), length) for _, length in content.entries]
        part = part[question.first : question.first + question.end_or_count]
        peer.send_zest(wire.manifest(question.request, wire.OK, len(content.chunks), question.first, part))
    else:
        serve(peer, content, question)


def liar(lie: Lie, file: StoredFile) -> wire.Script:
    lengths = file.manifest.lengths
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    content = Content([file.content[end - length : end] for end, length in zip(ends, lengths, strict=True)])

    def script(peer: WirePeer) -> None:
        while True:
            lie(peer, content, peer.question())

    return script


@pytest.mark.parametrize("lie", [_wrong_chunk, _wrong_manifest])
def test_a_peer_that_lies_is_banned_and_the_rest_comes_from_the_cdn(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, lie: Lie
) -> None:
    with WireServer(liar(lie, stored)) as server, engine(tmp_path / "B", [server.port]) as b:
        with within(BOUND_S):
            result = fetch(b, stored, tmp_path / "b")
        assert result.bytes_cdn == len(stored.content)
        (ban,) = b.status()["banned"]
        assert str(server.port) in ban["address"] or "127.0.0.1" in ban["address"]
        # It stays away.
        assert fetch(b, stored, tmp_path / "again").bytes_peer == 0


@pytest.mark.parametrize(("chunks_per_byte", "banned"), [(1 / 300, 0), (2, 1)], ids=["odd", "impossible"])
def test_a_peer_that_says_that_chunks_are_small(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, chunks_per_byte: float, banned: int
) -> None:
    """Nobody asks for so long a manifest, but only what cannot be is a lie."""
    chunks = int(len(stored.content) * chunks_per_byte)

    def odd(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            if question.type == wire.HAVE_REQUEST:
                proof = question.hold(stored.file_hash)
                peer.send_zest(wire.have(question.request, wire.OK, chunks, [(0, chunks)], proof))

    with WireServer(odd) as server, engine(tmp_path / "B", [server.port]) as b, within(BOUND_S):
        assert fetch(b, stored, tmp_path / "b").bytes_cdn == len(stored.content)
        assert len(b.status()["banned"]) == banned


def test_an_honest_peer_beside_a_liar_gives_everything(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "A") as a, WireServer(liar(_wrong_chunk, stored)) as server:
        offer(a, stored, tmp_path / "a")
        with engine(tmp_path / "B", [server.port, port_of(a)]) as b, within(BOUND_S):
            result = fetch(b, stored, tmp_path / "b")
            assert result.bytes_peer > 0


def test_a_peer_that_never_answers_costs_only_the_patience(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    def motionless(peer: WirePeer) -> None:
        peer.wait_until_hung_up()

    patience = PolicySettings()
    bound_s = patience.dial_patience_s + patience.answer_patience_s + 2
    with WireServer(motionless) as server, engine(tmp_path / "B", [server.port]) as b, within(bound_s):
        assert fetch(b, stored, tmp_path / "b").bytes_cdn == len(stored.content)


def test_nobody_is_told_of_a_private_file(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with WireServer(lambda peer: None) as server, engine(tmp_path / "B", [server.port]) as b:
        result = fetch(b, stored, tmp_path / "b", is_public=lambda: False)
        b.record(result, tmp_path / "b", RepoRef(stored.endpoint, "model", stored.repo), False)
        assert b.settle(BOUND_S)
        assert result.bytes_peer == 0
        assert server.accepted == 0
        assert b.status()["files"] == 0
        # What is recorded as private stays so for a peer that names it.
        with engine(tmp_path / "C", [port_of(b)]) as c:
            assert fetch(c, stored, tmp_path / "c").bytes_peer == 0


def test_with_seeding_off_nothing_is_offered(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "A", ZEST_SEED="off") as a:
        offer(a, stored, tmp_path / "a")
        assert "listen" not in a.status()
        index = a.index()
        assert index is not None and len(index.get(stored.file_hash)) == 1


# --- several downloads --------------------------------------------------------------------------------


def test_eight_downloads_at_once(local_hub: HubProcess, publisher: Publisher, tmp_path: Path) -> None:
    files = [publisher.put(xorb(f"file {number}", 300_000), xorb("shared", 200_000)) for number in range(8)]
    with engine(tmp_path / "home") as one, ThreadPoolExecutor(8) as pool, within(BOUND_S):
        local_hub.fault("cdn", "status", status=503, times=4)
        runs = [pool.submit(fetch, one, file, tmp_path / f"{n}") for n, file in enumerate(files)]
        sizes = [run.result().size_bytes for run in runs]
        assert one.status()["bytes"]["total"] == sum(sizes)
        # One client for each token provider: these are all their own.
        assert len(one._clients) == 8


def test_downloads_that_share_a_token_share_a_client(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    asked = []

    def token(force: bool) -> Any:
        asked.append(force)
        return stored.token()

    with engine(tmp_path / "home") as one:
        for number in range(3):
            fetch(one, stored, tmp_path / f"{number}", token_provider=token)
        assert len(one._clients) == 1
        assert asked == [False]


# --- the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_peer", [False, True])
def test_close_ends_downloads_under_way(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path, from_peer: bool
) -> None:
    file = publisher.put(*(tiny_chunks(f"close {number}", 160, 6000) for number in range(4)))
    path = tmp_path / "b"
    with engine(tmp_path / "A", ZEST_MAX_UP="1MB") as a:
        offer(a, file, tmp_path / "a")
        local_hub.fault("cdn", "rate", bytes_per_second=300_000)
        with engine(tmp_path / "B", [port_of(a)] if from_peer else []) as b:
            watch = Watch(at_bytes=0)
            failures: list[BaseException] = []

            def run() -> None:
                try:
                    b.download(file.request(path), watch)
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            assert watch.reached.wait(BOUND_S)
            with within(3.0):
                b.close()
            thread.join(3.0)
            assert not thread.is_alive()
            (failure,) = failures
            assert isinstance(failure, ZestError) and "closing" in str(failure)
            content = path.read_bytes()
            with pytest.raises(ZestError, match="closing"):
                b.download(file.request(tmp_path / "later"), Watch())
            assert b.index() is None
            assert path.read_bytes() == content


def test_close_from_the_thread_that_downloads(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    local_hub.fault("cdn", "rate", bytes_per_second=1_000_000)
    with engine(tmp_path / "home") as one, within(5.0), pytest.raises(ZestError):
        one.download(stored.request(tmp_path / "file"), Watch(then=one.close, at_bytes=0))


def test_interrupt_ends_downloads(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    local_hub.fault("cdn", "rate", bytes_per_second=300_000)
    with engine(tmp_path / "home") as one, within(3.0), pytest.raises(KeyboardInterrupt):
        one.download(stored.request(tmp_path / "file"), Watch(then=one.interrupt, at_bytes=0))


def test_an_exception_of_the_progress_leaves_no_writer_behind(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    local_hub.fault("cdn", "rate", bytes_per_second=1_000_000)
    path = tmp_path / "file"
    with engine(tmp_path / "home") as one:
        with pytest.raises(KeyboardInterrupt):
            one.download(stored.request(path), Watch(then=ctrl_c, at_bytes=0))
        path.write_bytes(b"the next owner's")
        local_hub.clear_faults()
        fetch(one, stored, tmp_path / "other")
        assert path.read_bytes() == b"the next owner's"


def test_a_fork_in_the_middle(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    """The child makes an engine of its own; the parent's download does not notice."""
    local_hub.fault("cdn", "rate", bytes_per_second=4_000_000)
    script = f"""
import os, sys, threading
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from downloads import Publisher, Watch, fetch, tiny_chunks
from zest_hf.engine import current_engine, get_engine
root = Path({str(tmp_path)!r})
file = Publisher({local_hub.endpoint!r}, "org/fork").put(tiny_chunks("fork", 160, 6000))
watch = Watch(at_bytes=0)
parent = threading.Thread(target=lambda: fetch(get_engine(), file, root / "parent", watch) and print("parent"))
parent.start()
watch.reached.wait(10)
get_engine().swarm()
child = os.fork()
if child == 0:
    assert current_engine() is None
    fetch(get_engine(), file, root / "child")
    get_engine().swarm()
    get_engine().close()
    os._exit(7)
_, status = os.waitpid(child, 0)
parent.join()
print("child", os.waitstatus_to_exitcode(status))
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_"))}
    environ |= {"ZEST_HOME": str(tmp_path / "home"), "ZEST_LISTEN": "127.0.0.1:0"}
    environ |= {"ZEST_LSD": "off", "ZEST_DHT": "off"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environ)
    assert done.stdout.splitlines() == ["parent", "child 7"] and done.returncode == 0, done.stdout + done.stderr


# --- what is remembered -------------------------------------------------------------------------------


def test_another_engine_finds_what_was_recorded(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, stored, tmp_path / "file")
    with engine(tmp_path / "home") as other:
        index = other.index()
        assert index is not None
        (known,) = index.get(stored.file_hash)
        assert (known.path, known.public) == (tmp_path / "file", True)
        assert known.manifest == stored.manifest
        assert sum(term.size_bytes for term in known.terms) == len(stored.content)
        # With a known manifest, wrong bytes are found out at once and asked for again.
        local_hub.fault("cdn", "corrupt", offset=100, times=1)
        fetch(other, stored, tmp_path / "again")


def test_what_is_not_the_file_any_more_is_not_recorded(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one:
        result = fetch(one, stored, tmp_path / "file")
        (tmp_path / "file").write_bytes(b"something else")
        one.record(result, tmp_path / "file", RepoRef(stored.endpoint, "model", stored.repo), True)
        assert one.settle(BOUND_S)
        index = one.index()
        assert index is not None and index.get(stored.file_hash) == []


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
@pytest.mark.parametrize("kind", ["file", "database"])
def test_an_index_that_others_lock_holds_up_no_download(
    local_hub: HubProcess,
    stored: StoredFile,
    tmp_path: Path,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "home" / "index.sqlite"
    with closing(Index(path)) as made:
        made.generation()
    with engine(tmp_path / "home") as one:
        with held_by_another_process(kind, path):
            with within(1.5):  # of which the downloads take most
                for number in range(5):
                    result = fetch(one, stored, tmp_path / f"{number}")
                    one.record(result, tmp_path / f"{number}", REPO, True)
            with within(INDEX_PATIENCE_S + 0.3):
                assert one.settle(BOUND_S)
            with within(0.1):
                one.remember_visibility(REPO, True)
                assert one.remembered_visibility(REPO) is None
            assert one.index() is None
            # Peers get them all the same.
            assert one.status()["files"] == 1
        (warning,) = [entry for entry in caplog.records if entry.levelname == "WARNING"]
        assert "kept it locked" in warning.getMessage()
        one._index._rests_until_s = 0.0  # a minute later
        offer(one, stored, tmp_path / "file")
        index = one.index()
        assert index is not None and [file.path for file in index.get(stored.file_hash)] == [tmp_path / "file"]


def test_visibility_is_remembered_across_processes(tmp_path: Path) -> None:
    repo, other = REPO, OTHER
    with engine(tmp_path / "home") as one:
        assert one.remembered_visibility(repo) is None
        one.remember_visibility(repo, True)
        one.remember_visibility(other, False)
    with engine(tmp_path / "home") as again:
        assert again.remembered_visibility(repo) is True
        assert again.remembered_visibility(other) is False


def test_however_many_files_come_at_once_all_are_noted(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    """More than there may be jobs: each that is begun takes all that wait."""
    begin = threading.Event()
    with engine(tmp_path / "home") as one:
        result = fetch(one, stored, tmp_path / "first")
        one._finished._records.submit(lambda: begin.wait(BOUND_S) and None)
        paths = {tmp_path / f"copy{number}" for number in range(MAX_BACKGROUND_JOBS + 50)}
        for path in paths:
            os.link(tmp_path / "first", path)
            one._finished.record(result, path, REPO, True, None, 0.0)
        begin.set()
        assert one.settle(BOUND_S)
        index = one.index()
        assert index is not None and {file.path for file in index.get(stored.file_hash)} == paths


def test_nobody_waits_for_what_the_hub_says_of_a_repository(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    answer = threading.Event()
    with engine(tmp_path / "home") as one:
        paths = [tmp_path / "one", tmp_path / "two"]
        for path in paths:
            result = fetch(one, stored, path)
            with within(RECORD_PATIENCE_S + 0.2):
                one.record(result, path, REPO, None, lambda: answer.wait(BOUND_S))
        assert one._finished._records.drain(BOUND_S)
        index = one.index()
        assert index is not None
        assert [(file.path, file.public) for file in index.get(stored.file_hash)] == [(p, False) for p in paths]
        assert "files" not in one.status()
        answer.set()
        assert one.settle(BOUND_S)
        assert [file.public for file in index.get(stored.file_hash)] == [True, True]
        assert one.status()["files"] == 1


def test_close_does_not_wait_for_what_the_hub_says(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> bool:
        asked.set()
        return answer.wait(BOUND_S)

    with engine(tmp_path / "home") as one:
        one.record(fetch(one, stored, tmp_path / "file"), tmp_path / "file", REPO, None, ask)
        assert asked.wait(BOUND_S)
        with within(0.5):
            one.close()
    answer.set()
    with closing(Index(tmp_path / "home" / "index.sqlite")) as index:
        assert len(index.get(stored.file_hash)) == 1


@pytest.mark.parametrize(("seed", "peers", "asked"), [("off", [], 0), ("off", [9], 1), ("on", [], 1)])
def test_the_hub_is_asked_only_if_somebody_wants_to_know(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, seed: str, peers: list[int], asked: int
) -> None:
    questions = []
    with engine(tmp_path / "home", ZEST_SEED=seed) as one:
        result = fetch(one, stored, tmp_path / "file")
    with engine(tmp_path / "home", peers, ZEST_SEED=seed) as one:
        one.record(result, tmp_path / "file", REPO, None, lambda: questions.append(1) is None)
        assert one.settle(BOUND_S)
    assert len(questions) == asked


# --- repositories that become private -----------------------------------------------------------------


def test_what_becomes_private_is_withdrawn(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> None:
    with engine(tmp_path / "A") as a:
        result = fetch(a, stored, tmp_path / "a")
        for repo in (REPO, OTHER):
            a.record(result, tmp_path / "a", repo, True)
        assert a.settle(BOUND_S) and a.status()["files"] == 1
        a.remember_visibility(OTHER, False)
        assert a.status()["files"] == 1, "it is in a public repository too"
        a.remember_visibility(REPO, False)
        assert a.status()["files"] == 0
        with engine(tmp_path / "B", [port_of(a)]) as b:
            assert fetch(b, stored, tmp_path / "b").bytes_peer == 0
        a.record(result, tmp_path / "a", REPO, True)
        assert a.settle(BOUND_S) and a.status()["files"] == 1


def test_what_becomes_private_while_it_is_downloaded(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    """Nobody is asked for it or offered it any more, also after its end; it comes from the CDN."""
    file = publisher.put(*(tiny_chunks(f"secret {number}", 160, 6000) for number in range(8)))
    repo = RepoRef(file.endpoint, "model", file.repo)
    with engine(tmp_path / "A", ZEST_MAX_UP="2MB") as a:
        offer(a, file, tmp_path / "a")
        with engine(tmp_path / "B", [port_of(a)]) as b, within(2 * BOUND_S):
            swarm = b.swarm()
            assert swarm is not None
            assert swarm.stats().files_shared == 0

            def turns_private() -> None:
                assert swarm.stats().files_shared == swarm.stats().swarms_joined == 1
                b.remember_visibility(repo, False)

            result = fetch(b, file, tmp_path / "b", Watch(then=turns_private))
            assert 0 < result.bytes_peer < len(file.content)
            stats = swarm.stats()
            assert (stats.files_shared, stats.xorbs_shared, stats.swarms_joined) == (0, 0, 0)
            # One that is complete, and waits for its final place.
            b.remember_visibility(repo, True)
            fetch(b, file, tmp_path / "again")
            assert swarm.stats().files_shared == 1
            b.remember_visibility(repo, False)
            eventually(lambda: swarm.stats().files_shared == 0, "it is withdrawn")


def test_what_becomes_private_while_it_is_being_offered(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(tmp_path / "A") as a:
        swarm = a.swarm()
        assert swarm is not None
        share = swarm.share

        def share_and_hear(file: IndexedFile) -> None:
            a.remember_visibility(REPO, False)
            share(file)

        monkeypatch.setattr(swarm, "share", share_and_hear)
        a.record(fetch(a, stored, tmp_path / "a"), tmp_path / "a", REPO, True)
        assert a.settle(BOUND_S)
        stats = swarm.stats()
        assert (stats.files_shared, stats.swarms_joined) == (0, 0)


def test_what_another_process_heard_counts_here(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one, closing(Index(tmp_path / "home" / "index.sqlite")) as others:
        one.record(fetch(one, stored, tmp_path / "file"), tmp_path / "file", REPO, True)
        assert one.settle(BOUND_S) and one.status()["files"] == 1
        others.set_public(REPO.endpoint, REPO.repo_type, REPO.repo_id, False)
        assert one.remembered_visibility(REPO) is False
        assert one.status()["files"] == 0


def test_an_old_answer_is_asked_for_again(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "VISIBILITY_AGE_S", 0.05)
    monkeypatch.setattr(finished, "VISIBILITY_LOOK_S", 0.02)
    silent, private = threading.Semaphore(0), threading.Event()
    with engine(tmp_path / "home") as one:

        def ask() -> bool:
            if private.is_set():
                one.remember_visibility(REPO, False)
            silent.release()
            return False

        one.record(fetch(one, stored, tmp_path / "file"), tmp_path / "file", REPO, True, ask)
        for _ in range(3):
            assert silent.acquire(timeout=BOUND_S)
        assert one.status()["files"] == 1, "no answer changes nothing"
        private.set()
        eventually(lambda: one.status()["files"] == 0, "it is withdrawn")


def test_a_home_that_cannot_be_written_costs_only_the_index(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_bytes(b"a file, not a directory")
    with engine(tmp_path / "home") as one:
        offer(one, stored, tmp_path / "file")
        offer(one, stored, tmp_path / "again")
        assert one.remembered_visibility(RepoRef("http://hub", "model", "org/one")) is None
    warnings = [entry for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(warnings) == 1 and "ZEST_HOME" in warnings[0].getMessage()


def test_verify(stored: StoredFile, publisher: Publisher, tmp_path: Path) -> None:
    file = publisher.put(xorb("chunked as clients do", 400_000))
    path = tmp_path / "file"
    path.write_bytes(file.content)
    with engine(tmp_path / "home") as one:
        assert one.verify(path, file.file_hash) == file.manifest
        path.write_bytes(file.content[:-1])
        with pytest.raises(ProofError):
            one.verify(path, file.file_hash)


@pytest.mark.parametrize(("wanted", "gets"), [(False, 8), (True, 32)])
def test_high_performance(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path, wanted: bool, gets: int
) -> None:
    """So many GETs run at the same time: few can be complete when the last of them begins."""
    size_bytes = 12_000
    file = publisher.put(*(tiny_chunks(f"one of many {number}", 2, size_bytes // 2) for number in range(40)))
    local_hub.fault("cdn", "rate", bytes_per_second=100_000)
    local_hub.reset_stats()
    watch = Watch(at_bytes=len(file.content))
    with engine(tmp_path / "home") as one, ThreadPoolExecutor(1) as other:
        done = other.submit(
            fetch, one, file, tmp_path / "file", watch, high_performance=wanted, read_timeout_s=BOUND_S
        )
        eventually(lambda: local_hub.stats()["cdn_requests"] >= gets, "they are asked for")
        assert local_hub.stats()["cdn_bytes"] < gets // 2 * size_bytes
        local_hub.clear_faults()
        assert done.result(BOUND_S).bytes_cdn == len(file.content)


def test_a_cdn_that_limits_each_connection_is_asked_by_more(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    """As long as the GETs that run bring more for it; those that wait for a thread count."""
    file = publisher.put(*(tiny_chunks(f"paced {number}", 100, 6000) for number in range(60)))
    local_hub.fault("cdn", "pace", bytes_per_second=1_000_000)
    local_hub.reset_stats()
    watch = Watch(at_bytes=len(file.content))
    quickly = ConcurrencySettings(settle_s=0.1, window_s=0.2)
    with engine(tmp_path / "home", concurrency=quickly) as one, ThreadPoolExecutor(1) as other:
        done = other.submit(fetch, one, file, tmp_path / "file", watch, read_timeout_s=BOUND_S)
        eventually(lambda: one.cdn_gets > 16, "so many run at once")
        local_hub.clear_faults()
        assert done.result(BOUND_S).bytes_cdn == len(file.content)
    assert local_hub.stats()["cdn_requests"] == 60


# --- caps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["the CDN", "a peer", "both"])
def test_one_cap_holds_for_peers_and_cdn(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path, source: str
) -> None:
    """Whatever the load of this machine is, it never comes sooner."""
    parts = [tiny_chunks(f"capped {number}", 110, 6000) for number in range(12)]
    file = publisher.put(*parts)
    # Its second half is in another file that the peer has, so that the rest is the CDN's. It is more than GETs are
    # made at first, so that the peer has something to do even if it takes long to say what it has.
    held = publisher.put(*parts[6:]) if source == "both" else file
    other = publisher.put(tiny_chunks("of another file", 20, 6000))
    with engine(tmp_path / "A") as a:
        offer(a, held, tmp_path / "a")
        offer(a, other, tmp_path / "other")
        peers = [] if source == "the CDN" else [port_of(a)]
        with engine(tmp_path / "B", peers, ZEST_MAX_DOWN="4MB") as b, within(3 * BOUND_S):
            # They know each other, so that the CDN does not begin with what the peer is still being asked about.
            met = fetch(b, other, tmp_path / "met")
            assert (met.bytes_peer > 0) == bool(peers)
            began_s = time.monotonic()
            result = fetch(b, file, tmp_path / "b")
            took_s = time.monotonic() - began_s
    size = len(file.content)
    assert (result.bytes_peer > 0) == (source != "the CDN")
    assert (result.bytes_cdn > 0) == (source != "a peer")
    # A tenth of a second's worth, and a buffer for each GET, may come at once.
    assert took_s >= (size - 0.1 * 4e6 - 8 * BUFFER_BYTES) / 4.4e6, size / took_s


# --- who downloads gives -----------------------------------------------------------------------------------


def test_a_leecher_serves_what_it_has_so_far(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    """C knows B only, and gets something from it long before B has everything."""
    file = publisher.put(*(tiny_chunks(f"passed on {number}", 160, 6000) for number in range(8)))
    with engine(tmp_path / "A", ZEST_MAX_UP="2MB") as a:
        offer(a, file, tmp_path / "a")
        with engine(tmp_path / "B", [port_of(a)]) as b, engine(tmp_path / "C", [port_of(b)]) as c:
            watch, had_b_all = Watch(), []

            class Given(Watch):
                def update(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic) -> None:
                    super().update(done_bytes, total_bytes, network_bytes, came)
                    if came.peer:
                        had_b_all.append(first.done())

            with ThreadPoolExecutor(1) as other, within(3 * BOUND_S):
                first = other.submit(fetch, b, file, tmp_path / "b", watch)
                assert watch.reached.wait(BOUND_S)
                second = fetch(c, file, tmp_path / "c", Given())
                assert had_b_all and not had_b_all[0]
                assert second.bytes_peer > 0
                assert first.result().bytes_peer == len(file.content)
            assert c.status()["peers_connected"] >= 1
