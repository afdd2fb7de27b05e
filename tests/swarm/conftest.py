"""Fixtures of the tests that need a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarm.node import Node


@pytest.fixture
def node() -> Iterator[Node]:
    """A session that offers nothing yet."""
    with Node() as node:
        yield node
