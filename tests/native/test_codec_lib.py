"""What a user sees when the native module cannot be used."""

from __future__ import annotations

import sys

import pytest

from zest_hf._native import lib
from zest_hf.errors import NativeUnavailable


def test_a_missing_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zest_hf._native._zest", None)
    with pytest.raises(NativeUnavailable, match="does not load on this machine") as caught:
        lib._load()
    assert isinstance(caught.value.__cause__, ImportError)
    assert "\n" not in str(caught.value)


def test_a_module_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "CODEC_ABI", lib.CODEC_ABI + 1)
    with pytest.raises(NativeUnavailable, match="reinstall zest_hf"):
        lib._load()
