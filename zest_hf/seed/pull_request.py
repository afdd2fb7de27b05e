"""What may be asked of `POST /v1/pull`: JSON from strangers."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from zest_hf.errors import ZestError

REPO_TYPES: Final = ("model", "dataset", "space")
MAX_BODY_BYTES: Final = 16 * 1024
MAX_NAME_CHARS: Final = 200
MAX_PATTERNS: Final = 100
# The Hub's own rule is checked when it is asked; this is for what is no name at all.
_REPO: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


class Refused(ZestError):
    """``status``: of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class PullRequest:
    """Which files of which repository."""

    repo: str
    repo_type: str = "model"
    revision: str | None = None
    allow_patterns: tuple[str, ...] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The repository: it is pulled once at a time."""
        return self.repo_type, self.repo

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def parse(body: bytes) -> PullRequest:
    """Raises Refused."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, 'the body is no JSON: it is written as {"repo": "org/model"}') from error
    if not isinstance(value, dict):
        raise Refused(400, 'the body is no JSON object: it is written as {"repo": "org/model"}')
    known = ("repo", "repo_type", "revision", "allow_patterns")
    unknown = [str(key)[:40] for key in value if key not in known]
    if unknown:
        raise Refused(400, f"unknown field {unknown[0]!r}: known are {', '.join(known)}")
    repo = value.get("repo")
    if not isinstance(repo, str) or len(repo) > MAX_NAME_CHARS or not _REPO.fullmatch(repo):
        raise Refused(400, "repo is not the name of a repository: it is written as org/name")
    repo_type = value.get("repo_type", "model")
    if repo_type not in REPO_TYPES:
        raise Refused(400, f"repo_type is one of {', '.join(REPO_TYPES)}")
    revision = value.get("revision")
    if revision is not None and not _is_text(revision):
        raise Refused(400, "revision is the name of a branch or a tag, or a commit")
    patterns = value.get("allow_patterns")
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if patterns is not None:
        if not isinstance(patterns, list) or not all(map(_is_text, patterns)):
            raise Refused(400, 'allow_patterns is a pattern or a list of them, such as ["*.json"]')
        if not 1 <= len(patterns) <= MAX_PATTERNS:
            raise Refused(400, f"allow_patterns has 1 to {MAX_PATTERNS} patterns")
    return PullRequest(repo, repo_type, revision, None if patterns is None else tuple(patterns))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()
