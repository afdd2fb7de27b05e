"""``zest hub``: the command line of the local Hub."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import socket
import ssl
import sys
from pathlib import Path

from zest_hf.errors import ConfigError, ZestError
from zest_hf.hub.options import HubOptions

DESCRIPTION = "Serve a Hugging Face Hub with Xet storage from a directory on this machine."
_NEEDED = ("starlette", "uvicorn", "httptools")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``zest hub`` on ``parser``."""
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="where repositories and xorbs are kept"
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:8930",
        metavar="HOST:PORT",
        help="address of the Hub and the CAS (%(default)s)",
    )
    parser.add_argument(
        "--cdn-listen", metavar="HOST:PORT", help="serve xorbs from an address and thread of their own"
    )
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        metavar="TOKEN",
        help="accept only this user token (repeatable)",
    )
    parser.add_argument(
        "--user", default="zest", metavar="NAME", help="name of the user behind every token (%(default)s)"
    )
    parser.add_argument(
        "--token-lifetime", type=float, default=3600, metavar="S", help="seconds a Xet token is valid"
    )
    parser.add_argument(
        "--url-lifetime", type=float, default=3600, metavar="S", help="seconds a CDN url is valid"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve https with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key (PEM)")
    testing = parser.add_argument_group("for tests of clients")
    testing.add_argument("--no-v2", action="store_true", help="answer 404 to version 2 of the CAS routes")
    testing.add_argument(
        "--redirect-cdn", action="store_true", help="send every CDN request through a 302 first"
    )
    testing.add_argument(
        "--exact-ranges", action="store_true", help="accept only the very range a url is signed for"
    )
    testing.add_argument("--multi-range", action="store_true", help="fold all ranges of a xorb into one url")
    testing.add_argument(
        "--remote-control", action="store_true", help="open /_stats and /_faults to other machines as well"
    )


def parse_address(text: str, option: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT or a bare port; ConfigError otherwise."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"{option} is {text!r}, accepted is HOST:PORT with a port from 0 to 65535")
    return host, int(port)


def _options(args: argparse.Namespace) -> HubOptions:
    for name in ("token_lifetime", "url_lifetime"):
        if not 0 < getattr(args, name) < 1e9:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}, accepted are seconds above 0"
            )
    return HubOptions(
        state_dir=args.state,
        listen=parse_address(args.listen, "--listen"),
        cdn_listen=parse_address(args.cdn_listen, "--cdn-listen") if args.cdn_listen else None,
        tokens=tuple(args.token),
        user=args.user,
        token_lifetime_s=args.token_lifetime,
        url_lifetime_s=args.url_lifetime,
        v2=not args.no_v2,
        redirect_cdn=args.redirect_cdn,
        exact_ranges=args.exact_ranges,
        multi_range=args.multi_range,
        remote_control=args.remote_control,
        tls=_tls(args.tls_certificate, args.tls_key),
    )


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-certificate and --tls-key are given together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # as are those of OpenSSL
        reason = "not a certificate and its key" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"{certificate} and {key} cannot be used for TLS: {reason}") from error
    return certificate, key


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code is 0 after a clean stop, 1 when the hub cannot start."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"zest hub needs {', '.join(missing)}: pip install 'zest_hf[hub]'", file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        _serve(_options(args))
    except ZestError as error:
        print(f"zest hub: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(options: HubOptions) -> None:
    # Imported late: the extra's libraries may be missing, and run() has just looked.
    from zest_hf.hub.server import serve
    from zest_hf.hub.state import Hub, join_host

    api = _listen(options.listen, "--listen")
    cdn = _listen(options.cdn_listen, "--cdn-listen") if options.cdn_listen is not None else None
    hub = Hub(options)
    hub.address = (options.listen[0], api.getsockname()[1])
    if cdn is not None and options.cdn_listen is not None:
        hub.cdn_address = (options.cdn_listen[0], cdn.getsockname()[1])

    def announce() -> None:
        print(
            f"zest hub listening on {hub.scheme}://{join_host(*hub.address)}, state in {options.state_dir}",
            flush=True,
        )

    try:
        serve(hub, api, cdn, announce)
    finally:
        hub.close()


def _listen(address: tuple[str, int], option: str) -> socket.socket:
    from zest_hf.hub.server import listen

    try:
        return listen(address)
    except ConfigError as error:
        raise ConfigError(f"{error}; choose another address with {option}") from error
