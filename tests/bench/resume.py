"""A download that is killed again and again: how much the CDN sends until the file is there.

    python tests/bench/resume.py [--megabytes 1024] [--kills 20] [--rate 150] [--seed N] [--at bytes|time]

A real process downloads through huggingface_hub from a Hub on this machine, whose CDN sends at the given rate, and is
killed with SIGKILL at random moments: when the CDN has sent random parts of the file, or, with ``--at time``, at random
times after it has begun. After each kill no file may have a final name; at the end the content is compared, and the
bytes are the Hub's own count. The exit code is 1 when that is more than a tenth of the file too much, or something is
wrong.

What the figure means. A kill costs what is on its way: what the CDN has sent and no journal names. That is nearly the
same each time, however much came before it: per connection (there are eight) up to 256 KiB that have been read and not
decoded, a chunk that is not whole, and what lies in the buffers of its socket, on both sides. On a line that is slower
than the decoder those of the receiver are nearly empty, and it is 2 MB or so in all. Without a limit (``--rate 0``) the
line is the memory of this machine: the buffers are always full, those of the Hub's sockets alone are 4 MiB each, and it
is about 35 MB. So the copies are 1 + kills x loss / file, as far as as much comes between two kills as a kill costs: at
20 kills a second the process would never get anything. A tenth for 20 kills is half a percent of the file a kill:
5 MB of 1 GB, which takes 35 ms at 150 MB/s and 5 ms from memory. That is why the rate is limited by default, and the
loss of each kill is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zest_hf.bench.downloads.world import REPO, environment, upload
from zest_hf.bench.weights import write_weights
from zest_hf.core.journal import parse
from zest_hf.hub.process import HubProcess

NAME = "model.safetensors"
LIMIT = 1.1
LOOK_S = 0.005
STALLED_S = 60.0

FETCH = """
import json, sys
import huggingface_hub as hub, zest_hf
path = hub.hf_hub_download(sys.argv[1], sys.argv[2])
print(json.dumps([path, zest_hf.status()["bytes"]]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the file (%(default)s)")
    parser.add_argument("--kills", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=150, help="MB/s that the CDN sends; 0: no limit (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments (random, and printed)")
    parser.add_argument("--at", choices=("bytes", "time"), default="bytes")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"seed {seed}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        return measure(Path(folder), args.megabytes << 20, args.kills, args.rate * 1e6, args.at, random.Random(seed))


def measure(work: Path, size: int, kills: int, rate: float, at: str, chance: random.Random) -> int:
    source = work / "source"
    source.mkdir()
    write_weights(source / NAME, size, 1)
    wanted = digest(source / NAME)
    with HubProcess(work / "hub") as hub:
        base = environment(hub.endpoint)
        upload(source, base, work)
        # What one copy is: packed, and with every request's overhead.
        ours = {**base, "HF_HUB_ENABLE_ZEST": "1", "ZEST_STRICT": "on", "ZEST_LISTEN": "127.0.0.1:0", "ZEST_LSD": "off"}
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import huggingface_hub.file_download, zest_hf"], env=ours, check=True)
        start_s = time.monotonic() - began
        finish({**ours, "HF_HOME": str(work / "once")})
        once_s = time.monotonic() - began - start_s
        copy = hub.stats()["cdn_bytes"]
        hub.reset_stats()
        if rate:
            hub.fault("cdn", "rate", bytes_per_second=rate)
        env = {**ours, "HF_HOME": str(work / "home")}
        sent, kept = 0, 0.0
        lost: list[float] = []
        if at == "bytes":
            moments = sorted(chance.uniform(0, copy) for _ in range(kills))
        else:
            gap_s = (copy / rate if rate else once_s - start_s) / kills
            moments = [start_s + chance.uniform(0, 2 * gap_s) for _ in range(kills)]
        for number, moment in enumerate(moments):
            if interrupted(hub, env, moment, at):
                print("... it was complete before the next kill")
                break
            now = settled(hub)
            here = min(1.0, noted(work / "home" / "zest" / "unfinished") / size) * copy
            loss = max(0.0, (now - sent) - (here - kept))
            print(
                f"kill {number + 1:2}: the CDN has sent {now / copy:6.1%}, {(now - sent) / 1e6:6.1f} MB this time; "
                f"{loss / 1e6:5.1f} MB of it lost"
            )
            sent, kept = now, here
            lost.append(loss)
            if named := [path for path in final(work / "home") if digest(path) != wanted]:
                print(f"wrong files under their final name: {named}")
                return 1
        output = finish(env)
        total = hub.stats()["cdn_bytes"]
    path, counts = json.loads(output.splitlines()[-1])
    # Empty ones are the Hub's client's, which was killed while it started.
    left = [path for path in (work / "home").rglob("*.incomplete") if path.stat().st_size]
    left += (work / "home" / "zest" / "unfinished").glob("*")
    print(f"in the last process {counts['local'] / 1e6:.0f} MB were there, the CDN gave {counts['cdn'] / 1e6:.0f} MB")
    print(f"the CDN sent {total / copy:.3f} copies of {copy / 1e6:.0f} MB; left behind: {[one.name for one in left]}")
    right = digest(Path(path)) == wanted
    if lost:
        print(f"lost at a kill: {sum(lost) / len(lost) / 1e6:.1f} MB, {max(lost) / 1e6:.1f} MB at most")
    print(f"content {'right' if right else 'WRONG'}, load {os.getloadavg()[0]:.1f}")
    return 0 if right and total <= LIMIT * copy and not left else 1


def settled(hub: HubProcess) -> int:
    """What the CDN has sent, when it has noticed that nobody takes more."""
    before, now = -1, hub.stats()["cdn_bytes"]
    while before != now:
        time.sleep(4 * LOOK_S)
        before, now = now, hub.stats()["cdn_bytes"]
    return int(now)


def noted(folder: Path) -> int:
    """Bytes of the file that the next process finds."""
    journals = (parse(path.read_bytes()) for path in folder.glob("*"))
    return sum(written.size_bytes for written in journals if written is not None)


def interrupted(hub: HubProcess, env: dict[str, str], moment: float, at: str) -> bool:
    """Kills a download; True: it was complete before."""
    process = subprocess.Popen([sys.executable, "-c", FETCH, REPO, NAME], env=env, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    while process.poll() is None:
        if (time.monotonic() - began if at == "time" else hub.stats()["cdn_bytes"]) >= moment:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        if time.monotonic() - began > STALLED_S:
            process.kill()
            raise SystemExit("it does not get on")
        time.sleep(LOOK_S)
    if process.returncode:
        raise SystemExit("a download failed, see above")
    return True


def finish(env: dict[str, str]) -> str:
    command = [sys.executable, "-c", FETCH, REPO, NAME]
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def final(home: Path) -> list[Path]:
    """Files under a name of which users think that it is complete."""
    found = (path for path in (home / "hub").rglob("*") if path.is_file() and path.stat().st_size > 1 << 20)
    return [path for path in found if path.suffix != ".incomplete"]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
