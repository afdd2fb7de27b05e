"""Text form and info-hashes of Xet hashes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.ids import (
    NODE_INFO_HASH,
    ZERO_HASH,
    XetHash,
    file_info_hash,
    hash_from_raw,
    hash_from_text,
    hash_to_text,
    xorb_info_hash,
)
from zest_hf.errors import ProtocolError

COUNTING = XetHash(bytes(range(32)))
COUNTING_TEXT = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"


def test_text_form_reverses_each_word() -> None:
    assert hash_to_text(COUNTING) == COUNTING_TEXT
    assert hash_from_text(COUNTING_TEXT) == COUNTING
    assert hash_from_text(COUNTING_TEXT.upper()) == COUNTING


@given(st.binary(min_size=32, max_size=32))
def test_text_form_round_trips(raw: bytes) -> None:
    assert hash_from_text(hash_to_text(hash_from_raw(raw))) == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 63,
        "0" * 65,
        "g" * 64,
        " " + "0" * 63,
        "0" * 64 + "\n",
        "\u0660" * 64,
        "00 " * 21 + "0",
        None,
        7,
    ],
)
def test_text_that_is_no_hash(text: str) -> None:
    with pytest.raises(ProtocolError, match="64 hexadecimal digits"):
        hash_from_text(text)


@given(st.text())
def test_any_text_is_a_hash_or_a_protocol_error(text: str) -> None:
    try:
        assert len(hash_from_text(text)) == 32
    except ProtocolError as error:
        assert "\n" not in str(error)


def test_raw_of_another_length() -> None:
    with pytest.raises(ProtocolError):
        hash_from_raw(bytes(31))
    assert type(hash_from_raw(memoryview(bytes(32)))) is bytes  # type: ignore[arg-type]


def test_info_hashes_are_domain_separated_sha1() -> None:
    assert xorb_info_hash(COUNTING) == hashlib.sha1(b"zest-xet-v1:" + COUNTING).digest()
    assert file_info_hash(COUNTING) == hashlib.sha1(b"zest-hf-file-v1:" + COUNTING).digest()
    assert len({xorb_info_hash(ZERO_HASH), file_info_hash(ZERO_HASH), NODE_INFO_HASH}) == 3
