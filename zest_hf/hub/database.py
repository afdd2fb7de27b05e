"""The hub's SQLite file: connection, schema, transactions. Who queries a table says what it means."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from zest_hf.errors import StorageError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE repos (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, private INTEGER NOT NULL,
  gated INTEGER NOT NULL DEFAULT 0, created_s REAL NOT NULL, UNIQUE (kind, name));
CREATE TABLE refs (
  repo_id INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, sha TEXT NOT NULL,
  PRIMARY KEY (repo_id, kind, name)) WITHOUT ROWID;
CREATE TABLE commits (
  repo_id INTEGER NOT NULL, sha TEXT NOT NULL, parent TEXT, title TEXT NOT NULL, message TEXT NOT NULL,
  created_s REAL NOT NULL, tree BLOB NOT NULL, PRIMARY KEY (repo_id, sha));
CREATE TABLE xorbs (
  hash BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, hashes BLOB NOT NULL, lengths BLOB NOT NULL,
  offsets BLOB NOT NULL);
CREATE TABLE shards (id INTEGER PRIMARY KEY, repo_id INTEGER NOT NULL, created_s REAL NOT NULL);
CREATE TABLE shard_xorbs (
  shard_id INTEGER NOT NULL, xorb BLOB NOT NULL, PRIMARY KEY (shard_id, xorb)) WITHOUT ROWID;
CREATE TABLE dedup_chunks (
  chunk BLOB NOT NULL, shard_id INTEGER NOT NULL, PRIMARY KEY (chunk, shard_id)) WITHOUT ROWID;
CREATE TABLE files (hash BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, terms BLOB NOT NULL);
CREATE TABLE repo_files (
  repo_id INTEGER NOT NULL, file_hash BLOB NOT NULL, sha256 TEXT,
  PRIMARY KEY (repo_id, file_hash)) WITHOUT ROWID;
CREATE INDEX repo_files_sha256 ON repo_files (sha256);
"""


class Database:
    """One connection, shared by all threads under a lock; changes become visible a transaction at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                with self.transaction() as sql:
                    for statement in _SCHEMA.split(";"):
                        sql.execute(statement)
                    sql.execute("INSERT INTO meta VALUES ('secret', ?)", (os.urandom(32),))
                    sql.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise StorageError(f"the hub's database {path} cannot be opened: {error}") from error
        if version > SCHEMA_VERSION:
            raise StorageError(f"{path} was written by a newer zest_hf (schema {version}): upgrade zest_hf")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside happens or nothing does."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def secret(self) -> bytes:
        """The key of this hub's signatures: 32 bytes, made when the state directory was."""
        ((value,),) = self.rows("SELECT value FROM meta WHERE key = 'secret'")
        assert isinstance(value, bytes)
        return value

    def close(self) -> None:
        with self._lock:
            self._connection.close()
