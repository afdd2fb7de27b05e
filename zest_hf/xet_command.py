"""`zest xet`: hashes, chunks and xorbs on the command line, and uploads."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zest_hf.errors import StorageError, ZestError

if TYPE_CHECKING:
    from zest_hf.core.manifest import Manifest
    from zest_hf.core.xorb import Xorb
    from zest_hf.upload import UploadedFile, UploadTotals

DESCRIPTION: Final = """The Xet format of the Hugging Face Hub: hash files as it does, look into chunks and xorbs, and
upload."""

MAX_XORB_FILE_BYTES: Final = (64 << 20) + (1 << 20)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the subcommands; each sets ``run`` to what takes the parsed arguments and returns an exit code."""
    parser.set_defaults(run=_help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    hashing = commands.add_parser("hash", help="print the Xet hash of files, as the Hub shows it")
    hashing.add_argument("files", nargs="+", metavar="FILE")
    hashing.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8), help="cores (%(default)s)")
    _common(hashing)
    hashing.set_defaults(run=_guarded(_hash))

    chunks = commands.add_parser("chunks", help="list the chunks of a file: offset, length, hash")
    chunks.add_argument("file", metavar="FILE")
    _common(chunks)
    chunks.set_defaults(run=_guarded(_chunks))

    unpack = commands.add_parser("unpack", help="check a serialized xorb, list its chunks, write its content")
    unpack.add_argument("xorb", metavar="XORB")
    unpack.add_argument("-o", "--output", metavar="OUT", help="write the content of all chunks here (- for stdout)")
    unpack.add_argument("--json", action="store_true", help="as JSON")
    unpack.set_defaults(run=_guarded(_unpack))

    upload = commands.add_parser("upload", help="upload a file or a folder to a repository")
    upload.add_argument("path", metavar="PATH")
    upload.add_argument("--repo", required=True, metavar="ORG/NAME", help="made if it does not exist")
    upload.add_argument("--repo-type", choices=["model", "dataset", "space"], default="model")
    upload.add_argument("--revision", default="main", help="branch (%(default)s)")
    upload.add_argument("--message", default="Upload with zest_hf", help="of the commit")
    upload.add_argument("--private", action="store_true", help="when the repository has to be made")
    upload.add_argument("--parallel", type=int, default=2, help="xorbs on their way at once (%(default)s)")
    upload.add_argument("--json", action="store_true", help="as JSON")
    upload.set_defaults(run=_guarded(_upload))


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--early", action="store_true", help="chunk as uploaders before hf_xet 1.1.10 (September 2025) did"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, one object a line")


Run = Callable[[argparse.Namespace], int]


def _help(parser: argparse.ArgumentParser) -> Run:
    def run(args: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return 2

    return run


def _guarded(run: Run) -> Run:
    """A file that cannot be read is the user's to know, in one line."""

    def guarded(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            raise StorageError(f"{where}{error.strerror or error}") from error

    return guarded


def _rule(args: argparse.Namespace) -> int:
    from zest_hf import xet

    return xet.RULE_EARLY if args.early else xet.RULE_CURRENT


def _hash(args: argparse.Namespace) -> int:
    from zest_hf import xet
    from zest_hf.parallel_scan import scan_into

    for name in args.files:
        tree = xet.Tree()
        with open(name, "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            scan_into(file.fileno(), size_bytes, tree.add, rule=_rule(args), threads=args.threads)
        text = xet.hash_to_text(xet.XetHash(tree.file_hash()))
        print(json.dumps({"file": name, "hash": text, "size": size_bytes}) if args.json else f"{text}  {name}")
    return 0


def _chunks(args: argparse.Namespace) -> int:
    from zest_hf import xet

    _list_chunks(xet.hash_file(args.file, _rule(args)), args.json)
    return 0


def _list_chunks(manifest: Manifest, as_json: bool) -> None:
    from zest_hf.core.ids import hash_to_text

    for index in range(len(manifest)):
        offset, length = manifest.offset(index), manifest.length(index)
        text = hash_to_text(manifest.hash(index))
        row = json.dumps({"offset": offset, "length": length, "hash": text})
        print(row if as_json else f"{offset:>12} {length:>6} {text}")


def _unpack(args: argparse.Namespace) -> int:
    from zest_hf import xet

    with open(args.xorb, "rb", buffering=0) as file:
        # One byte more than a xorb can have, so that a larger file is not read as a whole.
        data = file.read(MAX_XORB_FILE_BYTES + 1)
    if len(data) > MAX_XORB_FILE_BYTES:
        raise ZestError(f"{args.xorb}: larger than a xorb can be ({MAX_XORB_FILE_BYTES} bytes)")
    try:
        xorb = xet.read_xorb(data)
    except xet.XorbError as error:
        raise ZestError(f"{args.xorb}: {error}") from error
    # With the content on stdout there is no place for anything else.
    if args.output == "-":
        sys.stdout.buffer.write(xet.unpack_xorb(data)[1])
        sys.stdout.buffer.flush()
        return 0
    if args.output is not None:
        Path(args.output).write_bytes(xet.unpack_xorb(data)[1])
    if args.json:
        print(json.dumps(_xorb_as_json(xorb)))
        return 0
    count, packed = len(xorb.manifest), xorb.table.packed_bytes
    print(
        f"xorb {xet.hash_to_text(xorb.hash)}: {count} chunks, {xorb.manifest.size_bytes} bytes, {packed} packed, "
        f"{'with' if xorb.footer else 'without'} a footer"
    )
    if args.output is None:
        _list_chunks(xorb.manifest, False)
    return 0


def _xorb_as_json(xorb: Xorb) -> dict[str, object]:
    from zest_hf.core.ids import hash_to_text

    manifest, table = xorb.manifest, xorb.table
    rows = [
        {
            "length": length,
            "scheme": table.schemes[i],
            "packed_offset": table.packed_offsets[i],
            "hash": hash_to_text(manifest.hash(i)),
        }
        for i, length in enumerate(table.lengths)
    ]
    return {
        "hash": hash_to_text(xorb.hash),
        "size": manifest.size_bytes,
        "packed": table.packed_bytes,
        "footer": xorb.footer is not None,
        "chunks": rows,
    }


def _upload(args: argparse.Namespace) -> int:
    if not 1 <= args.parallel <= 16:
        raise ZestError(f"--parallel is {args.parallel}, accepted is 1 to 16")
    from zest_hf.hook.commit import HubRepo, Stored, files_below

    files = list(files_below(Path(args.path)))
    if not files:
        raise ZestError(f"{args.path}: there is nothing to upload")
    repo = HubRepo(args.repo, repo_type=args.repo_type, revision=args.revision)
    repo.create(private=args.private or None)
    modes = repo.modes(files)
    large = [file for file in files if modes[file.name] == "xet"]
    stored, totals = _store(repo, [file.path for file in large], args.parallel)
    names = dict(zip((file.path for file in large), (file.name for file in large), strict=True))
    commit = repo.commit(
        [Stored(names[one.path], one.sha256, one.size_bytes) for one in stored],
        [file for file in files if modes[file.name] == "regular"],
        args.message,
    )
    for row in _upload_report(args.json, commit, names, stored, totals):
        print(row)
    return 0


def _store(repo: Any, paths: list[Path], parallel: int) -> tuple[list[UploadedFile], UploadTotals]:
    from zest_hf.cas_upload import CasUploader
    from zest_hf.config import load_settings
    from zest_hf.upload import Upload

    cas = CasUploader(
        repo.token,
        user_agent=repo.user_agent,
        # A xorb over a slow line takes minutes, and the CAS checks a large shard before it answers.
        read_timeout_s=300.0,
        deadline_s=900.0,
        ca_bundle=load_settings().ca_bundle,
    )
    try:
        with Upload(cas, parallel=parallel) as upload:
            return [upload.add(path) for path in paths], upload.finish()
    finally:
        cas.close()


def _upload_report(
    as_json: bool, commit: str, names: dict[Path, str], stored: list[UploadedFile], totals: UploadTotals
) -> Iterator[str]:
    from zest_hf.core.ids import hash_to_text

    rows = [
        {"name": names[one.path], "hash": hash_to_text(one.file_hash), "sha256": one.sha256, "size": one.size_bytes}
        for one in stored
    ]
    if as_json:
        sums = {"total": totals.total_bytes, "new": totals.new_bytes, "sent": totals.sent_bytes}
        yield json.dumps({"commit": commit, "files": rows, "bytes": sums, "xorbs": totals.xorbs})
        return
    for row in rows:
        yield f"{row['hash']}  {row['name']}"
    yield (
        f"commit {commit}: {totals.total_bytes} bytes in {totals.files} Xet files, {totals.new_bytes} of them new, "
        f"{totals.sent_bytes} sent"
    )
