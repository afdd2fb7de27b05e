"""Who on this machine is at the other end of a loopback connection, as far as the kernel tells: Linux does.

From `/proc/net/tcp` (https://docs.kernel.org/networking/proc_net_tcp.html), which shows user numbers as this process's
user namespace has them.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from pathlib import Path
from typing import Final

ROOT: Final = 0


def is_another_users(
    client: tuple[str, int], server: tuple[str, int], own: int | None = None, table: Path | None = None
) -> bool:
    """Whether the connection from ``client`` to ``server``, both on loopback, was opened by another user than root.

    ``own``: the user that is no other, this process's. False where it cannot be told. One whose client has closed its
    end counts as another's: nobody owns such an end, and who asks waits for the answer.
    """
    own = os.getuid() if own is None else own
    is_ipv6 = ":" in client[0]
    table = Path(f"/proc/self/net/tcp{'6' if is_ipv6 else ''}") if table is None else table
    ends = _written(*client), _written(*server)
    shows_ours = False
    try:
        with table.open("rb") as rows:
            next(rows, None)
            for row in rows:
                fields = row.split()
                if (fields[1], fields[2]) == ends:
                    user, inode = int(fields[7]), int(fields[9])
                    return inode == 0 or user not in (own, ROOT)
                shows_ours = shows_ours or fields[1] == ends[1]
    except (OSError, ValueError, IndexError):
        return False
    return shows_ours


def _written(address: str, port: int) -> bytes:
    packed = ipaddress.ip_address(address.partition("%")[0]).packed
    words = (struct.unpack("=I", packed[at : at + 4])[0] for at in range(0, len(packed), 4))
    return ("".join(f"{word:08X}" for word in words) + f":{port:04X}").encode()
