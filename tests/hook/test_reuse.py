"""A second revision through the Hub's own functions: what has not changed comes from the cache."""

from __future__ import annotations

from .conftest import OWNER, Machine

PUBLISH = """
import random
from huggingface_hub import CommitOperationAdd, HfApi
data = bytearray(random.Random('revisions').randbytes(4_000_000))
api = HfApi()
api.create_repo('org/revisions', private=True)
for name in ('one', 'two'):
    api.create_commit('org/revisions', [CommitOperationAdd('model.bin', bytes(data))], commit_message=name)
    api.create_tag('org/revisions', tag=name)
    data[2_000_000:2_000_100] = bytes(100)
"""
FETCH = """
import hashlib, huggingface_hub as hub, zest_hf
path = hub.hf_hub_download('org/revisions', 'model.bin', revision=REVISION)
show(sha=hashlib.sha256(open(path, 'rb').read()).hexdigest(), bytes=zest_hf.status()['bytes'])
"""


def test_a_second_revision_of_a_private_repository(machine: Machine) -> None:
    done = machine.python(PUBLISH, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
    assert done.code == 0, done.stderr
    shown = []
    for revision in ("one", "two"):
        machine.hub.reset_stats()
        run = machine.python(FETCH.replace("REVISION", repr(revision)), HF_TOKEN=OWNER)
        assert run.stderr == ""
        shown.append(run.shown)
    first, second = (one["bytes"] for one in shown)
    assert shown[0]["sha"] != shown[1]["sha"]
    assert (first["local"], first["total"]) == (0, 4_000_000)
    assert second["total"] == 4_000_000 and second["cdn"] + second["local"] == 4_000_000
    assert second["local"] >= 3_500_000
    assert machine.hub.stats()["cdn_bytes"] < 500_000
