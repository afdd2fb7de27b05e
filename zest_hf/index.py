"""The index: which chunk of which xorb lies at which offset of which file on this machine.

A file's manifest gives its chunks and their offsets, its terms give the xorbs they come from. Both belong
to the content and are stored once; where it lies, and for which repository, belongs to a copy. 36 bytes a
chunk and 48 a term: less than 0.1 % of the model.

The index says what was true when it was written. Whoever opens a file by it checks size and mtime first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.database import Database
from zest_hf.errors import ProtocolError, StorageError

log = logging.getLogger("zest_hf.index")

SCHEMA_VERSION: Final = 2

# Chunks [first, stop) of a xorb are in a content.
_SPANS: Final = (
    """CREATE TABLE spans (
        xorb BLOB NOT NULL, first INTEGER NOT NULL, stop INTEGER NOT NULL, content INTEGER NOT NULL,
        PRIMARY KEY (xorb, first, stop, content)) WITHOUT ROWID""",
    "CREATE INDEX spans_of_content ON spans (content)",
)

_SCHEMA: Final = (
    """CREATE TABLE contents (
        id INTEGER PRIMARY KEY, file_hash BLOB NOT NULL UNIQUE,
        manifest BLOB NOT NULL, terms BLOB NOT NULL)""",
    """CREATE TABLE copies (
        id INTEGER PRIMARY KEY, content INTEGER NOT NULL, path BLOB NOT NULL, mtime_ns INTEGER NOT NULL,
        endpoint TEXT NOT NULL, repo_type TEXT NOT NULL, repo_id TEXT NOT NULL, public INTEGER NOT NULL,
        UNIQUE (path, endpoint, repo_type, repo_id))""",
    "CREATE INDEX copies_of_content ON copies (content)",
    *_SPANS,
    """CREATE TABLE visibility (
        endpoint TEXT NOT NULL, repo_type TEXT NOT NULL, repo_id TEXT NOT NULL, public INTEGER NOT NULL,
        checked_at_s REAL NOT NULL, PRIMARY KEY (endpoint, repo_type, repo_id)) WITHOUT ROWID""",
    "CREATE TABLE state (generation INTEGER NOT NULL)",
    # Begins at the time of making, in microseconds: so it also grows when a damaged index is made anew.
    """INSERT INTO state VALUES (CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER))""",
)

_CHANGES_KEPT: Final = 4096
"""Who has missed more looks at everything."""
_ADDED: Final = (
    # Older programs that use the file know nothing of it, and need not.
    """CREATE TABLE IF NOT EXISTS unanswered (
        file_hash BLOB NOT NULL PRIMARY KEY, asker BLOB NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID""",
    # Written by triggers: what older programs change is in it too.
    "CREATE TABLE IF NOT EXISTS changes (number INTEGER PRIMARY KEY AUTOINCREMENT, file_hash BLOB NOT NULL)",
    *(
        f"""CREATE TRIGGER IF NOT EXISTS {table}_after_{name} AFTER {event} ON {table} BEGIN
            INSERT INTO changes (file_hash) SELECT file_hash FROM contents WHERE id = {row};
            DELETE FROM changes WHERE number <= last_insert_rowid() - {_CHANGES_KEPT}; END"""
        for table, name, event, row in (
            ("copies", "insert", "INSERT", "NEW.content"),
            ("copies", "update", "UPDATE", "NEW.content"),
            ("copies", "delete", "DELETE", "OLD.content"),
            ("contents", "terms", "UPDATE OF terms", "NEW.id"),
        )
    ),
)



def _spans_of_terms(db: sqlite3.Connection) -> None:
    """From version 1, which knew the xorbs of a content and not which chunks of them it has."""
    db.execute("DROP TABLE xorbs")
    for statement in _SPANS:
        db.execute(statement)
    for content, terms in db.execute("SELECT id, terms FROM contents").fetchall():
        with contextlib.suppress(ProtocolError):  # a damaged entry is forgotten when it is read
            _name_spans(db, content, _unpack_terms(terms))


_UPGRADES: Final = {1: _spans_of_terms}

_TERM: Final = struct.Struct(">32sIIQ")
_PAGE: Final = 4
_MOST_VARIABLES: Final = 500
"""SQLite takes 999 and more in one statement."""

MOST_RELATED: Final = 16
"""Files that a download takes xorbs from; loading the manifest of a large one takes 10 ms,"""
MOST_SPARE_CHUNKS: Final = 100_000
"""... and of how many chunks those may be that have only xorbs which others have as well."""

_COLUMNS: Final = """
    SELECT copies.id, contents.id, file_hash, path, mtime_ns, repo_id, repo_type, endpoint, public,
    manifest, terms FROM copies JOIN contents ON contents.id = copies.content"""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A complete, proved file on this disk. `terms` may be empty: then its xorbs are not known.

    `size_bytes` is the manifest's; `path` and `mtime_ns` are those of the file when it was proved. One
    path can belong to several repositories, each with its own entry.
    """

    file_hash: XetHash
    path: Path
    size_bytes: int
    mtime_ns: int
    repo_id: str
    repo_type: str
    endpoint: str
    public: bool
    manifest: Manifest
    terms: tuple[Term, ...]


class Copy(NamedTuple):
    """Where a file lies and whose it is, without what it is made of.

    ``repo``: (endpoint, repo_type, repo_id); ``terms``: how many are known.
    """

    file_hash: XetHash
    path: Path
    mtime_ns: int
    repo: tuple[str, str, str]
    public: bool
    terms: int


class Position(NamedTuple):
    """Up to where changes of the index are known: how often its file was replaced, and a number in it."""

    file: int
    number: int


class Unknown(NamedTuple):
    """A copy of a file whose xorbs are not known.

    ``asker``: who asked the CAS for them in vain, None if nobody has. That is good until ``until_s`` (Unix time).
    """

    file_hash: XetHash
    path: Path
    repo: tuple[str, str, str]
    public: bool
    asker: bytes | None
    until_s: float


class Visibility(NamedTuple):
    """What the Hub said about a repository `age_s` seconds ago to someone without a token."""

    public: bool
    age_s: float


class Index:
    """The index at `path`, made when it is first needed. For any number of threads and processes, across
    forks.

    Every method raises StorageError, with one line for the user, when the disk or the file fails, or when
    others keep it locked for `patience_s`.
    """

    def __init__(
        self, path: Path, *, wall_clock: Callable[[], float] = time.time, patience_s: float = 10.0
    ) -> None:
        self._database = Database(
            Path(path), _SCHEMA, SCHEMA_VERSION, added=_ADDED, upgrades=_UPGRADES, patience_s=patience_s
        )
        self._wall_clock = wall_clock

    def add(self, file: IndexedFile, *, visibility_known: bool = True) -> None:
        """Put in a file, or what is new about it. What else was thought to lie at its path is forgotten.

        With `visibility_known` false, an entry that is there already keeps its `public`.
        """
        self.add_all([file], visibility_known=visibility_known)

    def add_all(self, files: Sequence[IndexedFile], *, visibility_known: bool = True) -> None:
        """All of these as `add` does, at once: each by itself would wait for the disk."""
        for file in files:
            if file.size_bytes != file.manifest.size_bytes or not _add_up(file.terms, file.size_bytes):
                raise StorageError(f"cannot index {file.path}: size, manifest and terms contradict each other")

        def work(db: sqlite3.Connection) -> None:
            # Not any(...) over them: all are to be added.
            if any([_add(db, file, visibility_known) for file in files]):
                _count(db)

        self._database.write(work)

    def get(self, file_hash: XetHash) -> list[IndexedFile]:
        """All copies of a file; none if it is unknown."""
        return self._select("WHERE file_hash = ? ORDER BY copies.id", (file_hash,))

    def find_xorb(self, xorb: XetHash) -> list[IndexedFile]:
        """All copies of files that have chunks of `xorb`, as far as their terms are known."""
        return self._select(
            "WHERE contents.id IN (SELECT content FROM spans WHERE xorb = ?) ORDER BY copies.id", (xorb,)
        )

    def sharing(self, terms: Sequence[Term]) -> list[tuple[XetHash, int]]:
        """For `related`: (xorb, content) wherever a content has chunks of a xorb of these terms, if any content has
        some of the terms' own.

        What is beside those serves to prove them, as the hash of a xorb is made of all its chunks. That costs a look-up
        a xorb, however many files have other chunks of it.
        """
        wanted: dict[XetHash, list[tuple[int, int]]] = {}
        for term in terms:
            wanted.setdefault(term.xorb, []).append((term.start, term.end))

        def is_there(db: sqlite3.Connection, xorb: XetHash) -> bool:
            sql = "SELECT first, stop FROM spans WHERE xorb = ? AND stop > ? AND first < ?"
            rows = db.execute(sql, (xorb, min(wanted[xorb])[0], max(end for _, end in wanted[xorb])))
            return any(first < end and start < stop for first, stop in rows for start, end in wanted[xorb])

        def look(db: sqlite3.Connection) -> list[tuple[XetHash, int]]:
            found = [xorb for xorb in wanted if is_there(db, xorb)]
            out = []
            for at in range(0, len(found), _MOST_VARIABLES):
                some = found[at : at + _MOST_VARIABLES]
                sql = f"SELECT DISTINCT xorb, content FROM spans WHERE xorb IN ({_marks(some)})"
                out += db.execute(sql, some).fetchall()
            return out

        return self._database.read(look)

    def related(
        self, sharing: Sequence[tuple[XetHash, int]], usable: Callable[[Path], bool] = os.path.isfile
    ) -> list[IndexedFile]:
        """Usable copies of what `sharing` has found, those with chunks of most of the xorbs first.

        So many that each xorb which is there is in one of them, and some more, as several files may have a part each.
        """
        shared: dict[int, set[XetHash]] = {}
        for xorb, found in sharing:
            shared.setdefault(found, set()).add(xorb)
        out: list[IndexedFile] = []
        covered: set[XetHash] = set()
        spare: list[int] = []
        most, chunks = MOST_RELATED, MOST_SPARE_CHUNKS
        for one in sorted(shared, key=lambda one: -len(shared[one])):
            if shared[one] <= covered:
                spare.append(one)
            elif most and (files := self._copies_of(one, usable)):
                most -= 1
                covered |= shared[one]
                out += files
        for one in spare[:_MOST_VARIABLES]:
            files = self._copies_of(one, usable)
            out += files
            chunks -= len(files[0].manifest) if files else 0
            if chunks < 0:
                break
        return out

    def _copies_of(self, content: int, usable: Callable[[Path], bool]) -> list[IndexedFile]:
        """... that are usable; without loading a manifest if there are none."""
        paths = self._database.read(
            lambda db: db.execute("SELECT path FROM copies WHERE content = ?", (content,)).fetchall()
        )
        there = {path for (path,) in paths if usable(Path(os.fsdecode(path)))}
        if not there:
            return []
        copies = self._select("WHERE contents.id = ? ORDER BY copies.id", (content,))
        return [file for file in copies if os.fsencode(file.path) in there]

    def entries(self) -> Iterator[IndexedFile]:
        """Every entry, a few in memory at a time. Changes made meanwhile may show or not."""
        last = 0
        while page := self._rows("WHERE copies.id > ? ORDER BY copies.id LIMIT ?", (last, _PAGE)):
            last = page[-1][0]
            yield from self._decoded(page)

    def file_hashes(self) -> list[XetHash]:
        """The hash of every file of the index, without loading their manifests."""
        return self._database.read(
            lambda db: [XetHash(row[0]) for row in db.execute("SELECT file_hash FROM contents ORDER BY id")]
        )

    def changes(self, since: Position | None = None) -> tuple[Position, set[XetHash] | None]:
        """The files whose entries have changed since an earlier call, or None when that is not known any more; and
        from where to ask the next time.
        """
        first, last = self._database.read(
            lambda db: db.execute("SELECT min(number), max(number) FROM changes").fetchone()
        )
        here = Position(self._database.replaced, last or 0)
        if since is None or since.file != here.file or not (first or 1) - 1 <= since.number <= here.number:
            return here, None
        sql = "SELECT file_hash FROM changes WHERE number > ? AND number <= ?"
        rows = self._database.read(lambda db: db.execute(sql, (since.number, here.number)).fetchall())
        return here, {XetHash(row[0]) for row in rows}

    def repos(self) -> list[tuple[str, str, str]]:
        """(endpoint, repo_type, repo_id) of every repository that has files here."""
        sql = "SELECT DISTINCT endpoint, repo_type, repo_id FROM copies"
        return self._database.read(lambda db: db.execute(sql).fetchall())

    def copies(self, of: Collection[XetHash] | None = None) -> list[Copy]:
        """Every entry, or those of some files, without loading manifests."""
        if of is not None:
            hashes = list(of)
            parts = (hashes[at : at + _MOST_VARIABLES] for at in range(0, len(hashes), _MOST_VARIABLES))
            return [copy for some in parts for copy in self._copies(f"WHERE file_hash IN ({_marks(some)})", some)]
        return self._copies("", ())

    def _copies(self, where: str, parameters: Sequence[object]) -> list[Copy]:
        rows = self._database.read(
            lambda db: db.execute(
                # The length of a blob is known without reading it.
                f"""SELECT file_hash, path, mtime_ns, endpoint, repo_type, repo_id, public, length(terms)
                FROM copies JOIN contents ON contents.id = copies.content {where} ORDER BY copies.id""",
                parameters,
            ).fetchall()
        )
        return [
            Copy(
                file_hash=XetHash(file_hash),
                path=Path(os.fsdecode(path)),
                mtime_ns=mtime_ns,
                repo=(endpoint, repo_type, repo_id),
                public=bool(public),
                terms=terms_bytes // _TERM.size,
            )
            for file_hash, path, mtime_ns, endpoint, repo_type, repo_id, public, terms_bytes in rows
        ]

    def without_terms(self) -> list[Unknown]:
        """Every copy of a file whose xorbs are not known, without loading manifests; repository by repository."""
        rows = self._database.read(
            lambda db: db.execute(
                """SELECT contents.file_hash, path, endpoint, repo_type, repo_id, public, asker, until_s
                FROM contents JOIN copies ON contents.id = copies.content
                LEFT JOIN unanswered ON unanswered.file_hash = contents.file_hash
                WHERE length(terms) = 0 ORDER BY endpoint, repo_type, repo_id, contents.id"""
            ).fetchall()
        )
        return [
            Unknown(XetHash(file_hash), Path(os.fsdecode(path)), (*repo,), bool(public), asker, until_s or 0.0)
            for file_hash, path, *repo, public, asker, until_s in rows
        ]

    def set_terms(self, file_hash: XetHash, terms: Sequence[Term]) -> None:
        """What is known from now on of the xorbs of a file, should it still be here.

        The caller has compared them with its manifest (`core.fitting`).
        """

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM unanswered WHERE file_hash = ?", (file_hash,))
            found = db.execute("SELECT id FROM contents WHERE file_hash = ?", (file_hash,)).fetchone()
            if found is not None and terms:
                _set_terms(db, found[0], terms)
                _count(db)

        self._database.write(work)

    def set_unanswered(self, file_hash: XetHash, asker: bytes, until_s: float) -> None:
        """``asker`` was told nothing about the xorbs of a file, and need not ask again until then (Unix time)."""
        self._database.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO unanswered VALUES (?, ?, ?)", (file_hash, asker, until_s)
            ).rowcount
        )

    def remove(self, file_hash: XetHash, path: Path) -> bool:
        """Forget the copy of a file at `path` for all repositories; False if there was none."""

        def work(db: sqlite3.Connection) -> bool:
            found = db.execute("SELECT id FROM contents WHERE file_hash = ?", (file_hash,)).fetchone()
            if found is None:
                return False
            gone = db.execute("DELETE FROM copies WHERE path = ? AND content = ?", (os.fsencode(path), *found)).rowcount
            if gone:
                _prune(db, found)
                _count(db)
            return gone > 0

        return self._database.write(work)

    def generation(self) -> int:
        """A number that grows with every change by any process; equal numbers mean that nothing has
        changed.
        """
        return self._database.read(lambda db: int(db.execute("SELECT generation FROM state").fetchone()[0]))

    @property
    def replaced(self) -> int:
        """How often, as far as was seen here, the index was made anew: what it knew is to be found out again."""
        return self._database.replaced

    def set_public(self, endpoint: str, repo_type: str, repo_id: str, public: bool) -> None:
        """Remember what the Hub said just now, and mark the repository's files accordingly."""
        repo = (endpoint, repo_type, repo_id)

        def work(db: sqlite3.Connection) -> None:
            same = "endpoint = ? AND repo_type = ? AND repo_id = ?"
            before = db.execute(f"SELECT public FROM visibility WHERE {same}", repo).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO visibility VALUES (?, ?, ?, ?, ?)",
                (*repo, int(public), self._wall_clock()),
            )
            changed = db.execute(
                f"UPDATE copies SET public = ? WHERE {same} AND public <> ?",
                (int(public), *repo, int(public)),
            ).rowcount
            if changed or before != (int(public),):
                _count(db)

        self._database.write(work)

    def visibility(self, endpoint: str, repo_type: str, repo_id: str) -> Visibility | None:
        """What is remembered about a repository, None for nothing."""
        row = self._database.read(
            lambda db: db.execute(
                """SELECT public, checked_at_s FROM visibility
                WHERE endpoint = ? AND repo_type = ? AND repo_id = ?""",
                (endpoint, repo_type, repo_id),
            ).fetchone()
        )
        return None if row is None else Visibility(bool(row[0]), max(0.0, self._wall_clock() - row[1]))

    def is_public(
        self, endpoint: str, repo_type: str, repo_id: str, *, max_age_s: float | None = None
    ) -> bool | None:
        """The remembered visibility; None if it is unknown or older than `max_age_s`."""
        known = self.visibility(endpoint, repo_type, repo_id)
        if known is None or (max_age_s is not None and known.age_s > max_age_s):
            return None
        return known.public

    def close(self) -> None:
        """Close the file; every later use is a StorageError. Idempotent."""
        self._database.close()

    def _select(self, where: str, parameters: Sequence[object]) -> list[IndexedFile]:
        return list(self._decoded(self._rows(where, parameters)))

    def _rows(self, where: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._database.read(lambda db: db.execute(f"{_COLUMNS} {where}", parameters).fetchall())

    def _decoded(self, rows: list[tuple[Any, ...]]) -> Iterator[IndexedFile]:
        """The entries of `rows`. One that makes no sense is forgotten: its file can be indexed again."""
        # Copies of one content share its manifest, which may be megabytes.
        contents: dict[int, tuple[Manifest, tuple[Term, ...]] | None] = {}
        for (
            _,
            content,
            file_hash,
            path,
            mtime_ns,
            repo_id,
            repo_type,
            endpoint,
            public,
            manifest,
            terms,
        ) in rows:
            if content not in contents:
                contents[content] = self._content(content, manifest, terms)
            known = contents[content]
            if known is None:
                continue
            yield IndexedFile(
                file_hash=XetHash(file_hash),
                path=Path(os.fsdecode(path)),
                size_bytes=known[0].size_bytes,
                mtime_ns=mtime_ns,
                repo_id=repo_id,
                repo_type=repo_type,
                endpoint=endpoint,
                public=bool(public),
                manifest=known[0],
                terms=known[1],
            )

    def _content(
        self, content: int, manifest: bytes, terms: bytes
    ) -> tuple[Manifest, tuple[Term, ...]] | None:
        try:
            return Manifest.from_bytes(manifest), _unpack_terms(terms)
        except ProtocolError as error:
            log.warning("zest_hf: the index %s: forgetting a damaged entry (%s)", self._database.path, error)

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM copies WHERE content = ?", (content,))
            _prune(db, [content])
            _count(db)

        self._database.write(work)
        return None


def _add(db: sqlite3.Connection, file: IndexedFile, visibility_known: bool) -> bool:
    """Whether anything has changed. As few statements as can be: each gives up the interpreter, and waits for it."""
    path = os.fsencode(file.path)
    manifest, terms = file.manifest.to_bytes(), _pack_terms(file.terms)
    repo = (file.endpoint, file.repo_type, file.repo_id)
    content, known_terms = db.execute(
        "SELECT id, terms FROM contents WHERE file_hash = ?", (file.file_hash,)
    ).fetchone() or (None, None)
    changed = content is None or (terms != known_terms and bool(terms))
    if content is None:
        content = db.execute(
            "INSERT INTO contents (file_hash, manifest, terms) VALUES (?, ?, ?)",
            (file.file_hash, manifest, terms),
        ).lastrowid
        assert content is not None
        _name_spans(db, content, file.terms)
    elif changed:
        _set_terms(db, content, file.terms)
    there = db.execute(
        "SELECT content, endpoint, repo_type, repo_id, mtime_ns, public FROM copies WHERE path = ?", (path,)
    ).fetchall()
    gone = {row[0] for row in there} - {content}
    if gone:
        db.execute("DELETE FROM copies WHERE path = ? AND content <> ?", (path, content))
    known = next((row[4:] for row in there if row[:4] == (content, *repo)), None)
    public = int(file.public) if visibility_known or known is None else known[1]
    state = (file.mtime_ns, public)
    if known != state:
        db.execute(
            """INSERT OR REPLACE INTO copies
            (content, path, mtime_ns, endpoint, repo_type, repo_id, public)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (content, path, state[0], *repo, state[1]),
        )
        changed = True
    _prune(db, gone)
    return changed or bool(gone)


def _set_terms(db: sqlite3.Connection, content: int, terms: Sequence[Term]) -> None:
    db.execute("UPDATE contents SET terms = ? WHERE id = ?", (_pack_terms(terms), content))
    db.execute("DELETE FROM spans WHERE content = ?", (content,))
    _name_spans(db, content, terms)


def _name_spans(db: sqlite3.Connection, content: int, terms: Sequence[Term]) -> None:
    # A file may repeat itself.
    spans = {(term.xorb, term.start, term.end, content) for term in terms}
    db.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", sorted(spans))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _add_up(terms: Sequence[Term], size_bytes: int) -> bool:
    """... to the file's size, unless they are not known."""
    return not terms or sum(term.size_bytes for term in terms) == size_bytes


def _pack_terms(terms: Sequence[Term]) -> bytes:
    return b"".join(_TERM.pack(term.xorb, term.start, term.end, term.size_bytes) for term in terms)


def _unpack_terms(data: bytes) -> tuple[Term, ...]:
    if len(data) % _TERM.size:
        raise ProtocolError(f"terms of {len(data)} bytes are no multiple of {_TERM.size}")
    return tuple(Term(XetHash(xorb), start, end, size) for xorb, start, end, size in _TERM.iter_unpack(data))


def _prune(db: sqlite3.Connection, contents: Iterable[int]) -> None:
    """Those of these contents that have no copy any more go, and what is known about their xorbs."""
    for content in contents:
        if not db.execute("SELECT 1 FROM copies WHERE content = ? LIMIT 1", (content,)).fetchone():
            db.execute(
                "DELETE FROM unanswered WHERE file_hash = (SELECT file_hash FROM contents WHERE id = ?)", (content,)
            )
            db.execute("DELETE FROM contents WHERE id = ?", (content,))
            db.execute("DELETE FROM spans WHERE content = ?", (content,))


def _count(db: sqlite3.Connection) -> None:
    db.execute("UPDATE state SET generation = generation + 1")
