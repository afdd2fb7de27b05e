"""`zest bench crowd`: what a crowd of N nodes takes, by the simulator, as lines of text and as a picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zest_hf.bench import picture
from zest_hf.errors import ZestError

if TYPE_CHECKING:
    from zest_hf.bench.crowd_sim import Outcome

DESCRIPTION = """Simulate nodes that download the same model at the same time: how many copies the origin sends, and how
long the last node takes, what share of all bytes is talk, and how much memory a node's plan of the model takes. Virtual
links, the decisions of the real program."""

COUNTS = "1,2,4,8,16,32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", default=COUNTS, help=f"how many, several with commas between ({COUNTS})")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the model (1)")
    parser.add_argument("--origin", type=float, default=1.0, metavar="GBIT", help="the origin's line in Gbit/s (1)")
    parser.add_argument("--host", type=float, default=4.0, metavar="GBIT", help="each node's line in Gbit/s (4)")
    parser.add_argument(
        "--connection", type=float, metavar="GBIT", help="what the origin gives one connection, in Gbit/s (all)"
    )
    parser.add_argument("--over", type=float, default=0.0, metavar="SECONDS", help="from first start to last (0)")
    parser.add_argument("--scale", type=int, default=8, help="true bytes that a simulated one stands for (8)")
    parser.add_argument(
        "--meets", type=float, nargs=2, default=(0.3, 0.9), metavar="SECONDS", help="until nodes hear of each other"
    )
    parser.add_argument("--neighbours", type=int, default=16, help="of whom a node takes chunks (16)")
    parser.add_argument("--tick", type=float, default=0.02, metavar="SECONDS", help="of virtual time (0.02)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the curves as well")


def simulate(args: argparse.Namespace, count: int) -> Outcome:
    # Not before they are needed: every command loads this module, also where the native one does not load.
    from zest_hf.bench.crowd_sim import NodeSpec, Scenario, Simulation
    from zest_hf.bench.virtual import VirtualFile

    # Pieces of 8 MiB, or of what one virtual chunk stands for.
    file = VirtualFile(int(args.gigabytes * 1e9), args.scale, piece_chunks=max(1, 64 // args.scale))
    host = args.host * 125e6
    nodes = [NodeSpec(host, host, start_s=args.over * number / max(count - 1, 1)) for number in range(count)]
    scenario = Scenario(
        file,
        nodes,
        args.origin * 125e6,
        meets_s=tuple(args.meets),
        may_come_s=1.0,
        neighbours=args.neighbours,
        tick_s=args.tick,
        # At every tick, also where the sum of many is a little less.
        tell_s=0.1 if args.tick < 0.1 else 0.9 * args.tick,
        seed=args.seed,
    )
    if args.connection is not None:
        scenario.per_connection_bytes_s = args.connection * 125e6
    return Simulation(scenario).run()


def run(args: argparse.Namespace) -> int:
    try:
        counts = [int(count) for count in args.nodes.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or min(args.gigabytes, args.origin, args.host, args.scale, args.tick) <= 0:
        raise ZestError("--nodes takes numbers such as 1,8,32; sizes, lines and the scale are above 0")
    from zest_hf.bench.plan_memory import plan_bytes

    draw = _plotter() if args.plot is not None else None
    outcomes = []
    for count in counts:
        began_s = time.monotonic()
        outcomes.append(simulate(args, count))
        took_s = time.monotonic() - began_s
        memory = plan_bytes(int(args.gigabytes * 1e9), count, 2 * args.neighbours) / 1e6
        print(f"{count:5} nodes: {outcomes[-1]}; plan of {memory:.1f} MB (simulated in {took_s:.0f} s)", flush=True)
    if draw is not None:
        draw(args.plot, counts, outcomes)
    return 0


def _plotter() -> Callable[[Path, list[int], list[Outcome]], None]:
    pyplot = picture.pyplot()
    from matplotlib.ticker import FuncFormatter

    def draw(path: Path, counts: list[int], outcomes: list[Outcome]) -> None:
        figure, (copies, times) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        alone = [count * one.bound_s for count, one in zip(counts, outcomes, strict=True)]
        crowd_copies, crowd_s = [one.copies for one in outcomes], [max(one.done_s) for one in outcomes]
        copies.plot(counts, counts, "--", color="grey", label="each for itself")
        copies.plot(counts, crowd_copies, "o-", label="crowd")
        copies.set(ylabel="copies that the origin sends")
        times.plot(counts, alone, "--", color="grey", label="each for itself")
        times.plot(counts, crowd_s, "o-", label="last node of the crowd")
        times.plot(counts, [one.bound_s for one in outcomes], ":", color="black", label="one copy over the line")
        times.set(ylabel="seconds")
        label = f"nodes that download {outcomes[0].size_bytes / 1e9:.3g} GB at once"
        for axes, values, form in ((copies, crowd_copies, ".2f"), (times, crowd_s, ".0f")):
            axes.set(xlabel=label, xscale="log", yscale="log")
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.minorticks_off()
            # What is near to one looks all the same on a scale for hundreds.
            for count, value in zip(counts, values, strict=True):
                axes.annotate(format(value, form), (count, value), (0, 6), textcoords="offset points", ha="center")
            axes.legend()
            axes.grid(visible=True, alpha=0.3)
        picture.save(figure, path)

    return draw
