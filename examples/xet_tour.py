"""The Xet format step by step, on two versions of a file: chunks, hashes, a xorb, a shard, and the way back.

No network and no other program is needed:

    python examples/xet_tour.py
"""

from __future__ import annotations

import hashlib
import random

from zest_hf import xet


def main() -> None:
    noise = random.Random(0)
    first = noise.randbytes(600_000) + b"all work and no play makes a dull model\n" * 10_000
    second = first[:300_000] + b"(an edit in the middle)" + first[300_000:]

    print("1. Chunks: cut by content, so that an edit changes only the chunks around it")
    chunks = {name: list(xet.chunk(data)) for name, data in (("first", first), ("second", second))}
    known = {piece.hash for piece in chunks["first"]}
    new = [piece for piece in chunks["second"] if piece.hash not in known]
    for name, pieces in chunks.items():
        print(f"   {name}: {len(pieces)} chunks of {min(map(len, pieces))} to {max(map(len, pieces))} bytes")
    print(f"   only {len(new)} chunks of the second are new: {sum(map(len, new))} of {len(second)} bytes")

    print("2. Hashes: a tree over the chunks names the file")
    hasher = xet.FileHasher()
    for at in range(0, len(second), 10_000):
        hasher.update(second[at : at + 10_000])
    print(f"   second: {hasher.hexdigest()}")

    print("3. Xorbs: packed chunks, many in one object; what is known is not packed again")
    xorbs = [xet.pack_xorb(piece.data for piece in chunks["first"]), xet.pack_xorb(piece.data for piece in new)]
    tables = [xet.chunk_table(packed) for packed in xorbs]
    manifests = [xet.read_xorb(packed).manifest for packed in xorbs]
    for manifest, table in zip(manifests, tables, strict=True):
        text = xet.hash_to_text(manifest.xorb_hash())
        print(f"   {text[:16]}...: {table.size_bytes} bytes packed into {table.packed_bytes}")

    print("4. A shard says which chunks of which xorbs the second file is made of")
    terms = terms_of(chunks["second"], manifests)
    sha256 = hashlib.sha256(second).hexdigest()
    described = [xet.ShardXorb(one.xorb_hash(), one.hashes, one.lengths) for one in manifests]
    upload = xet.Shard((xet.ShardFile(hasher.file_hash(), tuple(terms), sha256),), tuple(described)).to_bytes()
    (file,) = xet.parse_shard(upload).files
    print(f"   {len(upload)} bytes, {len(file.terms)} terms:")
    for term in file.terms:
        print(f"   chunks {term.start}..{term.end} of {xet.hash_to_text(term.xorb)[:16]}..., {term.size_bytes} bytes")

    print("5. Reconstruction: the plan of a byte range, and its execution")
    stored = {one.xorb_hash(): packed for one, packed in zip(manifests, xorbs, strict=True)}
    layouts = {one.xorb_hash(): table for one, table in zip(manifests, tables, strict=True)}
    rows = [xet.Term(term.xorb, term.start, term.end, term.size_bytes) for term in file.terms]
    start, end = 299_990, 300_040
    answer = xet.plan_range(rows, layouts.__getitem__, start, end).to_v2(lambda name, ranges: f"https://cdn/{name}")
    plan = xet.parse_v2(answer)

    def read(fetch: xet.FetchRange) -> bytes:
        print(f"   fetch bytes {fetch.byte_start}..{fetch.byte_end} of {xet.hash_to_text(fetch.xorb)[:16]}...")
        return stored[fetch.xorb][fetch.byte_start : fetch.byte_end]

    found = b"".join(xet.reconstruct(plan, read, size_bytes=end - start))
    assert found == second[start:end]
    print(f"   bytes {start}..{end} rebuilt: {b'(an edit in the middle)' in found}")
    whole = xet.parse_v2(xet.plan_range(rows, layouts.__getitem__).to_v2(lambda name, ranges: f"https://cdn/{name}"))
    assert b"".join(xet.reconstruct(whole, read, file_hash=hasher.file_hash())) == second
    print("   the whole file rebuilt, and proved by its hash")


def terms_of(pieces: list[xet.Chunk], manifests: list[xet.Manifest]) -> list[xet.ShardTerm]:
    """Runs of chunks that lie one after the other in a xorb."""
    places = {one.hash(i): (one, i) for one in reversed(manifests) for i in range(len(one))}
    runs: list[tuple[xet.Manifest, int, int]] = []
    for piece in pieces:
        manifest, index = places[piece.hash]
        if runs and runs[-1][0] is manifest and runs[-1][2] == index:
            runs[-1] = (manifest, runs[-1][1], index + 1)
        else:
            runs.append((manifest, index, index + 1))
    terms = []
    for manifest, start, end in runs:
        part = manifest.slice(start, end)
        proof = xet.verification_hash(part.hashes)
        terms.append(xet.ShardTerm(manifest.xorb_hash(), start, end, part.size_bytes, proof))
    return terms


if __name__ == "__main__":
    main()
