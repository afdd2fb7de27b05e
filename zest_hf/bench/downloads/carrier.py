"""Carries IP packets between two TUN devices, as a line would that has delay, loss and a rate.

    python -m zest_hf.bench.downloads.carrier FD FD DELAY_S LOSS MBIT_S

The descriptors are those of the devices, open for packets without headers of the kernel's own (IFF_NO_PI). It is
one thread, and ends with its stdin. What it says at its end: packets that each way has lost and dropped.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
from collections import deque

from zest_hf.bench.downloads.line import MTU_BYTES, Lane, Line

AT_ONCE = 64
"""Packets that are taken from one device before those that are due at the other are given out."""
NICENESS = -10
"""A line does not wait for who uses it."""


def carry(ends: tuple[int, int], stop: int, line: Line) -> tuple[Lane, Lane]:
    """Packets from each of two descriptors to the other, until a third can be read."""
    lanes = Lane(line, 1), Lane(line, 2)
    on_way: tuple[deque[tuple[float, bytes]], ...] = deque(), deque()
    ways = tuple(zip(ends, reversed(ends), lanes, on_way, strict=True))
    monotonic = time.monotonic
    while True:
        due_s = min((packets[0][0] for packets in on_way if packets), default=None)
        timeout_s = None if due_s is None else max(0.0, due_s - monotonic())
        readable = select.select((*ends, stop), (), (), timeout_s)[0]
        if stop in readable:
            return lanes
        for near, far, lane, packets in ways:
            if near in readable:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(AT_ONCE):
                        packet = os.read(near, MTU_BYTES + 1)
                        if len(packet) > MTU_BYTES:
                            raise SystemExit(f"a packet of more than {MTU_BYTES} bytes")
                        now_s = monotonic()
                        at_s = lane.arrival_s(len(packet), now_s)
                        if at_s is not None:
                            packets.append((at_s, packet))
            now_s = monotonic()
            while packets and packets[0][0] <= now_s:
                os.write(far, packets.popleft()[1])


def main() -> None:
    first, second = int(sys.argv[1]), int(sys.argv[2])
    delay_s, loss, mbit_s = map(float, sys.argv[3:])
    # Ctrl-C is for who has started this, which has to end what uses the line before.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    gc.disable()  # nothing here refers to itself, and the line would stand still meanwhile
    for fd in (first, second):
        os.set_blocking(fd, False)
    print("carrying", flush=True)
    lanes = carry((first, second), sys.stdin.fileno(), Line(delay_s, loss, mbit_s, ""))
    print(*(count for lane in lanes for count in (lane.carried_bytes, lane.lost, lane.dropped)), flush=True)


if __name__ == "__main__":
    main()
