"""One Hub on this machine for the whole run. Repositories are made by whoever needs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import depth
import pytest
from hypothesis import settings

from zest_hf.hub.process import HubProcess

# What hf_xet remembers of uploads it keeps by the Hub's address, and an earlier Hub of ours may have had the same port:
# then it names xorbs to the new one that only the old one had. To be set before huggingface_hub is imported.
_xet_cache = tempfile.TemporaryDirectory(prefix="zest-tests-")
os.environ["HF_XET_CACHE"] = _xet_cache.name

if depth.DEPTH > 1:
    settings.load_profile("depth")


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def local_hub(running_hub: HubProcess) -> Iterator[HubProcess]:
    """The same Hub, without the faults and the statistics of other tests."""
    running_hub.clear_faults()
    running_hub.reset_stats()
    yield running_hub
    running_hub.clear_faults()
