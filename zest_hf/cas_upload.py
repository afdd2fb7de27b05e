"""The uploading half of the CAS's interface: deduplication queries, xorbs, shards (Xet specification, "API").

With CasClient's token, retries and errors. All three requests may be repeated safely: what the CAS has already it
says so about.
"""

from __future__ import annotations

import json
from typing import Any, Final

from zest_hf.cas import CasClient, CasToken
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.shard import Shard, parse_shard
from zest_hf.errors import CasError, CasUnavailable, ProtocolError
from zest_hf.http_body import read_limited
from zest_hf.transport import Answer, place

MAX_SHARD_BYTES: Final = 96 << 20
"""An answer to a deduplication query; uploads stop at 64 MiB."""

MAX_ANSWER_BYTES: Final = 1 << 20

_BINARY: Final = {"Content-Type": "application/octet-stream", "Accept": "*/*"}


class CasUploader(CasClient):
    """A CasClient with a token for writing. Thread-safe."""

    def query_chunk(self, chunk: XetHash) -> Shard | None:
        """The shard by which the CAS tells where this chunk is stored, and its neighbours; None if it is not.

        Raises ShardError for an answer that is none, and as `reconstruction` does.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        path = f"/v1/chunks/default/{hash_to_text(chunk)}"

        def ask(token: CasToken, until_s: float) -> Shard | None:
            response = self._transport.get(token.url.rstrip("/") + path, headers, bearer=token.token)
            if response.status_code == 404:
                response.close()
                return None
            return parse_shard(self._body(response, MAX_SHARD_BYTES, until_s))

        return self._retrying(ask)

    def upload_xorb(self, xorb: XetHash, data: bytes) -> bool:
        """Store a serialized xorb; False when the CAS had it. Raises as `reconstruction` does."""

        def send(token: CasToken, until_s: float) -> bool:
            answer = self._answer(self._post(token, f"/v1/xorbs/default/{hash_to_text(xorb)}", data), until_s)
            inserted = answer.get("was_inserted")
            if not isinstance(inserted, bool):
                raise ProtocolError("the CAS did not say whether it has stored the xorb")
            return inserted

        return self._retrying(send)

    def upload_shard(self, data: bytes) -> None:
        """Register the files and xorbs of a shard, whose xorbs have been uploaded. Raises as `reconstruction` does."""

        def send(token: CasToken, until_s: float) -> None:
            response = self._post(token, "/v2/shards", data)
            if response.status_code not in {404, 501}:
                self._read_events(response, until_s)
                return
            response.close()
            answer = self._answer(self._post(token, "/v1/shards", data), until_s)
            if answer.get("result") not in (0, 1):
                raise ProtocolError("the CAS did not say what it has done with the shard")

        self._retrying(send)

    def _post(self, token: CasToken, path: str, data: bytes) -> Answer:
        return self._transport.post(token.url.rstrip("/") + path, _BINARY, data, bearer=token.token)

    def _body(self, response: Answer, limit: int, until_s: float) -> bytes:
        if response.status_code not in {200, 201}:
            with response:
                raise self._explained(response)
        return bytes(read_limited(response, limit, until_s=until_s, clock=self._clock))

    def _explained(self, response: Answer) -> CasError:
        """The refusal, with the server's reason: unlike a download, an upload can be wrong by itself."""
        error = self._refusal(response)
        try:
            buffer = memoryview(bytearray(4096))
            said = json.loads(bytes(buffer[: response.readinto(buffer)])).get("error", "")
        except Exception:  # the reason is a courtesy
            said = ""
        if isinstance(said, str) and said:
            error.args = (f"{error}: {said[:300]}",)
        return error

    def _answer(self, response: Answer, until_s: float) -> dict[str, Any]:
        where = place(response.url)
        return _object(self._body(response, MAX_ANSWER_BYTES, until_s), where)

    def _read_events(self, response: Answer, until_s: float) -> None:
        """Lines of JSON, of which the last one says how it went."""
        where = place(response.url)
        for line in self._body(response, MAX_ANSWER_BYTES, until_s).splitlines():
            if not line.strip():
                continue
            event = _object(line, where)
            if event.get("type") == "result":
                return
            if event.get("type") == "error":
                message = f"{where}: the shard was refused: {str(event.get('message'))[:300]}"
                if event.get("retryable") is True:
                    raise CasUnavailable(message, retryable=True)
                raise CasError(message)
        raise CasUnavailable(f"{where}: the answer to the shard ended without a result", retryable=True)


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: the answer to an upload is not a JSON object")
    return value
