"""Carrying out a plan: from packed bytes of xorbs to the bytes of a file.

Implements the client side of the reconstruction section of the Xet specification
(https://huggingface.co/docs/xet/file-reconstruction), one term after the other. The bytes come from a function, so
that nothing here knows of a network. (The engine does the same with many sources at once, into a file.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zest_hf._native import codec
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term
from zest_hf.core.xorb import ChunkTable, chunk_table
from zest_hf.errors import ProofError, ReconstructionError, XorbError

Buffer = bytes | bytearray | memoryview
ByteSource = Callable[[FetchRange], Buffer]
"""The packed bytes byte_start..byte_end of a xorb, `FetchRange.size_bytes` of them."""


def reconstruct(
    plan: Reconstruction, read: ByteSource, *, size_bytes: int | None = None, file_hash: XetHash | None = None
) -> Iterator[memoryview]:
    """The bytes that `plan` describes, in order, one piece for each term.

    `size_bytes` is how many are wanted: a plan for a byte range may reach behind the end of it. With `file_hash`,
    which needs the plan of a whole file, the bytes are proved: the last piece is not handed out when they are
    not that file. `read` is called once for each fetch range that a term needs, when it is needed first; the
    packed bytes are kept until the last term that needs them.

    Raises ReconstructionError (the plan gives fewer bytes than wanted, or offers a proof that cannot be),
    XorbError (bytes that do not decode to what the plan says), ProofError, and what `read` raises.
    """
    wanted = plan.size_bytes if size_bytes is None else size_bytes
    if not 0 <= wanted <= plan.size_bytes:
        raise ReconstructionError(f"{wanted} bytes wanted, the plan gives {plan.size_bytes}")
    if file_hash is not None and (plan.offset_into_first_range or wanted != plan.size_bytes):
        raise ReconstructionError("a part of a file cannot be proved by the file's hash")
    return _run(plan, read, wanted, file_hash)


def _run(plan: Reconstruction, read: ByteSource, left: int, file_hash: XetHash | None) -> Iterator[memoryview]:
    covers = [plan.covering(term) for term in plan.terms]
    last_use = {cover: index for index, cover in enumerate(covers)}
    held: dict[FetchRange, tuple[memoryview, ChunkTable]] = {}
    tree = codec.Tree()
    skip = plan.offset_into_first_range
    for index, (term, cover) in enumerate(zip(plan.terms, covers, strict=True)):
        if cover not in held:
            held[cover] = _fetched(cover, read(cover))
        content, hashes, lengths = _decode(term, cover, *held[cover], hashed=file_hash is not None)
        if last_use[cover] == index:
            del held[cover]
        if file_hash is not None:
            tree.add(hashes, lengths)
            if index + 1 == len(covers):
                _prove(file_hash, XetHash(tree.file_hash()))
        piece = memoryview(content)[skip : skip + left]
        skip = 0
        left -= len(piece)
        if len(piece):
            yield piece
    if file_hash is not None and not covers:
        _prove(file_hash, XetHash(tree.file_hash()))


def _prove(wanted: XetHash, got: XetHash) -> None:
    if wanted != got:
        raise ProofError(
            f"the bytes are those of file {hash_to_text(got)}, wanted {hash_to_text(wanted)}", wanted=wanted, got=got
        )


def _fetched(cover: FetchRange, data: Buffer) -> tuple[memoryview, ChunkTable]:
    view = memoryview(data).cast("B")
    if len(view) != cover.size_bytes:
        raise XorbError(f"{len(view)} bytes of xorb {hash_to_text(cover.xorb)} instead of {cover.size_bytes}")
    table = chunk_table(view)
    if len(table) != cover.end - cover.start or table.packed_bytes != len(view):
        wanted = f"chunks {cover.start}..{cover.end} of xorb {hash_to_text(cover.xorb)}"
        raise XorbError(f"the bytes for {wanted} hold {len(table)} chunks")
    return view, table


def _decode(
    term: Term, cover: FetchRange, view: memoryview, table: ChunkTable, *, hashed: bool
) -> tuple[bytearray, bytes, list[int]]:
    first, last = term.start - cover.start, term.end - cover.start
    lengths = table.lengths[first:last]
    if sum(lengths) != term.size_bytes:
        raise XorbError(
            f"chunks {term.start}..{term.end} of xorb {hash_to_text(term.xorb)} have {sum(lengths)} bytes, "
            f"the plan says {term.size_bytes}"
        )
    content = bytearray(term.size_bytes)
    packed = view[table.packed_offsets[first] : table.packed_offsets[last]]
    return content, codec.unpack_into(packed, last - first, content, hashed=hashed), list(lengths)
