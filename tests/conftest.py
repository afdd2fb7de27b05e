"""One Hub on this machine for the whole run. Repositories are made by whoever needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zest_hf.hub.process import HubProcess


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
