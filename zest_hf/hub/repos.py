"""Repositories: creation, references, commits and their trees."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Literal

from zest_hf.hub.database import Database
from zest_hf.hub.disk import write_atomically
from zest_hf.hub.http import Refusal

Kind = Literal["model", "dataset", "space"]
KINDS: dict[str, Kind] = {"models": "model", "datasets": "dataset", "spaces": "space"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
MAX_PATH_CHARS = 1024


@dataclass(frozen=True)
class Repo:
    id: int
    kind: Kind
    name: str
    private: bool
    gated: bool
    created_s: float


@dataclass(frozen=True)
class Entry:
    """One file of a tree; hashes in hexadecimal. ``oid``: git blob id (of the pointer for Xet files)."""

    path: str
    oid: str
    size_bytes: int
    sha256: str | None = None
    xet_hash: str | None = None
    pointer_bytes: int = 0


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    message: str
    created_s: float
    tree: bytes

    def entries(self) -> dict[str, Entry]:
        """Path to entry, in path order. Shared between callers: do not change it."""
        return _entries(self.tree)


@lru_cache(maxsize=64)
def _entries(tree: bytes) -> dict[str, Entry]:
    return {row[0]: Entry(*row) for row in json.loads(zlib.decompress(tree))}


def timestamp(moment_s: float) -> str:
    """A time as the Hub writes it."""
    return datetime.fromtimestamp(moment_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_blob_oid(content: bytes) -> str:
    """The git object id of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def xet_entry(path: str, sha256: str, size_bytes: int, xet_hash: str) -> Entry:
    """The entry of a file that git would keep as an LFS pointer."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()
    return Entry(path, git_blob_oid(pointer), size_bytes, sha256, xet_hash, len(pointer))


def check_path(path: object) -> str:
    """A path inside a repository, or Refusal 400."""
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH_CHARS:
        raise Refusal(400, f"a path in a repository has 1 to {MAX_PATH_CHARS} characters")
    if any(part in ("", ".", "..") for part in path.split("/")) or any(ord(c) < 32 for c in path):
        raise Refusal(400, f"{path!r} is not a path inside a repository")
    return path


class RepoStore:
    """The Hub side of the state. Methods block on the disk: call them from a worker thread."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root
        self._database = database

    # Repositories

    def create(self, kind: Kind, name: str, *, private: bool) -> tuple[Repo, bool]:
        """The repository and whether it is new."""
        if name.count("/") != 1 or not all(_NAME.fullmatch(part) for part in name.split("/")):
            raise Refusal(400, f"{name!r} is not a repository name: use letters, digits, '-', '_' and '.'")
        with self._database.transaction() as sql:
            now_s = time.time()
            cursor = sql.execute(
                "INSERT OR IGNORE INTO repos (kind, name, private, created_s) VALUES (?, ?, ?, ?)",
                (kind, name, private, now_s),
            )
            new = cursor.rowcount == 1
            if new:
                first = make_commit({}, None, "initial commit", "", now_s)
                repo_id = cursor.lastrowid
                sql.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?)", (repo_id, *_row(first)))
                sql.execute("INSERT INTO refs VALUES (?, 'branch', 'main', ?)", (repo_id, first.sha))
        repo = self.find(kind, name)
        assert repo is not None
        return repo, new

    def find(self, kind: Kind, name: str) -> Repo | None:
        columns = "id, kind, name, private, gated, created_s"
        rows = self._database.rows(f"SELECT {columns} FROM repos WHERE kind = ? AND name = ?", kind, name)
        return _repo(rows[0]) if rows else None

    def listing(self, kind: Kind) -> list[Repo]:
        columns = "id, kind, name, private, gated, created_s"
        rows = self._database.rows(f"SELECT {columns} FROM repos WHERE kind = ? ORDER BY name", kind)
        return [_repo(row) for row in rows]

    def delete(self, repo: Repo) -> None:
        """Forget a repository. Its xorbs stay: others may use them."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM repos WHERE id = ?", (repo.id,))
            for table in ("refs", "commits", "repo_files"):
                sql.execute(f"DELETE FROM {table} WHERE repo_id = ?", (repo.id,))

    def set_access(self, repo: Repo, *, private: bool | None, gated: bool | None) -> None:
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE repos SET private = coalesce(?, private), gated = coalesce(?, gated) WHERE id = ?",
                (private, gated, repo.id),
            )

    # References and commits

    def refs(self, repo: Repo, kind: str) -> dict[str, str]:
        rows = self._database.rows("SELECT name, sha FROM refs WHERE repo_id = ? AND kind = ?", repo.id, kind)
        return {str(name): str(sha) for name, sha in rows}

    def set_ref(self, repo: Repo, kind: str, name: str, sha: str) -> bool:
        """Add a branch or tag; False when it exists."""
        if not _REF.fullmatch(name):
            raise Refusal(400, f"{name!r} is not a name for a {kind}")
        with self._database.transaction() as sql:
            row = (repo.id, kind, name, sha)
            return sql.execute("INSERT OR IGNORE INTO refs VALUES (?, ?, ?, ?)", row).rowcount == 1

    def delete_ref(self, repo: Repo, kind: str, name: str) -> bool:
        with self._database.transaction() as sql:
            row = (repo.id, kind, name)
            cursor = sql.execute("DELETE FROM refs WHERE repo_id = ? AND kind = ? AND name = ?", row)
            return cursor.rowcount == 1

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        """The commit that a branch, tag or full commit id names; Refusal 404 RevisionNotFound."""
        short = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        rows = self._database.rows(
            "SELECT sha, parent, title, message, created_s, tree FROM commits WHERE repo_id = ?1 AND sha = "
            "coalesce((SELECT sha FROM refs WHERE repo_id = ?1 AND name = ?2 ORDER BY kind LIMIT 1), ?3)",
            repo.id,
            short,
            revision,
        )
        if not rows:
            raise Refusal(404, f"Invalid rev id: {revision[:100]}", code="RevisionNotFound")
        return Commit(*rows[0])  # type: ignore[arg-type]

    def history(self, repo: Repo, revision: str) -> list[Commit]:
        """The commit and its ancestors, newest first."""
        commits = [self.commit_of(repo, revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commit_of(repo, parent))
        return commits

    def commit(
        self,
        repo: Repo,
        branch: str,
        parent: str | None,
        title: str,
        message: str,
        changes: dict[str, Entry | None],
    ) -> Commit:
        """Put changes (None deletes) on top of a branch. Refusal 412 when it has moved past ``parent``."""
        branch = branch.removeprefix("refs/heads/")
        with self._database.transaction() as sql:
            if branch not in self.refs(repo, "branch"):
                raise Refusal(404, f"Invalid rev id: {branch[:100]}", code="RevisionNotFound")
            head = self.commit_of(repo, branch)
            if parent is not None and parent != head.sha:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            entries = dict(head.entries())
            for path, entry in changes.items():
                if entry is None:
                    if entries.pop(path, None) is None:
                        raise Refusal(
                            404, f"A file with this name doesn't exist: {path}", code="EntryNotFound"
                        )
                else:
                    entries[path] = entry
            _refuse_shadowed(entries)
            new = make_commit(entries, head.sha, title, message, time.time())
            sql.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?)", (repo.id, *_row(new)))
            update = "UPDATE refs SET sha = ? WHERE repo_id = ? AND kind = 'branch' AND name = ?"
            sql.execute(update, (new.sha, repo.id, branch))
        return new

    # Small files

    def blob_path(self, oid: str) -> Path:
        return self._root / "blobs" / oid[:2] / oid

    def add_blob(self, path: str, content: bytes) -> Entry:
        oid = git_blob_oid(content)
        if not self.blob_path(oid).exists():
            write_atomically(self.blob_path(oid), content)
        return Entry(path, oid, len(content))


def make_commit(
    entries: dict[str, Entry], parent: str | None, title: str, message: str, now_s: float
) -> Commit:
    """A commit with an id of its own. Ids are opaque to clients; these are not those of git."""
    rows = [
        [e.path, e.oid, e.size_bytes, e.sha256, e.xet_hash, e.pointer_bytes]
        for e in sorted(entries.values(), key=lambda e: e.path)
    ]
    tree = json.dumps(rows, separators=(",", ":")).encode()
    identity = json.dumps([hashlib.sha1(tree).hexdigest(), parent, title, message, time.time_ns()])
    sha = hashlib.sha1(identity.encode()).hexdigest()
    return Commit(sha, parent, title, message, now_s, zlib.compress(tree, 1))


def moved(entry: Entry, path: str) -> Entry:
    """The same content under another path."""
    return replace(entry, path=path)


def _refuse_shadowed(entries: dict[str, Entry]) -> None:
    for path in entries:
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in entries:
                raise Refusal(400, f"{path} cannot be a file and a folder at once")


def _row(commit: Commit) -> tuple[object, ...]:
    return (commit.sha, commit.parent, commit.title, commit.message, commit.created_s, commit.tree)


def _repo(row: tuple[object, ...]) -> Repo:
    repo_id, kind, name, private, gated, created_s = row
    assert isinstance(repo_id, int) and isinstance(name, str) and isinstance(created_s, float)
    assert kind == "model" or kind == "dataset" or kind == "space"
    return Repo(repo_id, kind, name, bool(private), bool(gated), created_s)
