"""Who may do what: user tokens of the Hub, Xet tokens of the CAS, signed urls of the CDN.

Xet tokens and urls carry their own claims under an HMAC, so nothing about them is stored and they outlive
a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Literal

from zest_hf.hub.http import Refusal

Scope = Literal["read", "write"]
Ranges = tuple[tuple[int, int], ...]

MAX_TOKEN_CHARS = 4096


@dataclass(frozen=True)
class XetClaim:
    """What a Xet token says: its scope, the repository (row id) and until when (Unix seconds)."""

    scope: Scope
    repo_id: int
    expires_at_s: int


def bearer(header: str | None) -> str | None:
    """The token of an ``Authorization: Bearer`` header, None when there is none."""
    if header is None:
        return None
    kind, _, token = header.partition(" ")
    token = token.strip()
    return token if kind.lower() == "bearer" and token else None


class Signer:
    """Issues and checks Xet tokens and CDN urls with one secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _mac(self, purpose: str, text: str) -> str:
        digest = hmac.new(self._key, f"{purpose}\n{text}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def issue_token(self, scope: Scope, repo_id: int, lifetime_s: float) -> tuple[str, int]:
        """A new Xet token and when it expires (Unix seconds)."""
        expires_at_s = int(time.time() + lifetime_s)
        payload = json.dumps([scope, repo_id, expires_at_s], separators=(",", ":")).encode()
        text = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
        return f"xet_{text}.{self._mac('token', text)}", expires_at_s

    def read_token(self, header: str | None) -> XetClaim:
        """The claim of an Authorization header; Refusal 401 when it is missing, forged or expired."""
        token = bearer(header)
        if token is None:
            raise Refusal(401, "the CAS needs a Xet token: Authorization: Bearer TOKEN")
        text, _, mac = token[:MAX_TOKEN_CHARS].removeprefix("xet_").partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("token", text).encode()):
            raise Refusal(401, "the Xet token was not issued by this hub")
        scope, repo_id, expires_at_s = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if expires_at_s <= time.time():
            raise Refusal(401, "the Xet token has expired: ask the hub for a new one")
        return XetClaim(scope, repo_id, expires_at_s)

    def sign_url(self, base: str, xorb: str, ranges: Ranges, lifetime_s: float, *, redirect: bool) -> str:
        """A url that opens the half-open byte ``ranges`` of a xorb (text hash) until it expires."""
        expires_at_s = int(time.time() + lifetime_s)
        allowed = ",".join(f"{start}-{end - 1}" for start, end in ranges)
        hop = "&via=1" if redirect else ""
        mac = self._mac("url", f"{xorb} {allowed} {expires_at_s}")
        return f"{base}/_cdn/{xorb}?range={allowed}&expires={expires_at_s}&signature={mac}{hop}"

    def read_url(self, xorb: str, allowed: str, expires: str, signature: str) -> Ranges:
        """The signed ranges of a url; Refusal 403 when it is forged or expired."""
        wanted = self._mac("url", f"{xorb} {allowed} {expires}")
        if not hmac.compare_digest(signature.encode(), wanted.encode()):
            raise Refusal(403, "the url is not signed by this hub")
        if int(expires) <= time.time():
            raise Refusal(403, "the url has expired: ask for the reconstruction again")
        pairs = (part.partition("-") for part in allowed.split(","))
        return tuple((int(first), int(last) + 1) for first, _, last in pairs)
