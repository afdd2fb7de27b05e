"""Plain BitTorrent: a session of libtorrent that seeds a folder, and one in another process that downloads it.

    python -m zest_hf.bench.downloads.torrent_files seed HOST FOLDER TORRENT
    python -m zest_hf.bench.downloads.torrent_files fetch HOST PEER PORT TORRENT INTO

Over TCP without encryption and with the hashes of version 1 alone, which is the quickest that it does.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import libtorrent

from zest_hf.bench.downloads.children import done, listening

SETTINGS: libtorrent.settings_pack = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
}
TIMEOUT_S = 3600


def session(host: str) -> libtorrent.session:
    alerts = libtorrent.alert.category_t
    mask = alerts.status_notification | alerts.error_notification | alerts.storage_notification
    parameters = libtorrent.session_params()
    parameters.settings = {**SETTINGS, "listen_interfaces": f"{host}:0", "alert_mask": mask}
    return libtorrent.session(parameters)


def describe(folder: Path, torrent: Path) -> None:
    """Write a torrent of the folder's files."""
    storage = libtorrent.file_storage()
    libtorrent.add_files(storage, str(folder))
    made = libtorrent.create_torrent(storage, 0, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(made, str(folder.parent))
    torrent.write_bytes(libtorrent.bencode(made.generate()))


def added(of: libtorrent.session, torrent: Path, into: Path, *, complete: bool) -> libtorrent.torrent_handle:
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(str(torrent))
    parameters.save_path = str(into)
    if complete:
        parameters.flags |= libtorrent.torrent_flags.seed_mode  # it needs no check
    return of.add_torrent(parameters)


def seed(host: str, folder: Path, torrent: Path) -> None:
    describe(folder, torrent)
    ours = session(host)
    added(ours, torrent, folder.parent, complete=True)
    listening(ours.listen_port())
    threading.Event().wait()


def fetch(host: str, address: tuple[str, int], torrent: Path, into: Path) -> None:
    ours = session(host)
    handle = added(ours, torrent, into, complete=False)
    handle.connect_peer(address)
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        ours.wait_for_alert(1000)
        for alert in ours.pop_alerts():
            if isinstance(alert, libtorrent.torrent_finished_alert):
                return
            if isinstance(alert, libtorrent.torrent_error_alert | libtorrent.file_error_alert):
                raise SystemExit(alert.message())
    raise SystemExit("the torrent was never complete")


def main() -> None:
    mode, host, *rest = sys.argv[1:]
    if mode == "seed":
        seed(host, Path(rest[0]), Path(rest[1]))
        return
    peer, port, torrent, into = rest
    began_s = time.monotonic()
    fetch(host, (peer, int(port)), Path(torrent), Path(into))
    done(time.monotonic() - began_s)


if __name__ == "__main__":
    main()
