"""The subcommands `speed` and `calibrate` of `python -m experiments`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DONE, UNUSABLE = 0, 2  # exit statuses
CONSTANTS = Path("jaxconv/_constants/cpu.json")
PAGE = Path("docs")
RESULTS = Path("results/speed")
TIMES = RESULTS / "calibration.json"
RUNS = 3


def register(commands: Any) -> None:
    """Add the subcommands to those of the experiments; each sets `handler`, a function of the options."""
    speed = commands.add_parser("speed", help="measure jaxconv against JAX, SciPy and torch", description=_SPEED)
    speed.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="cases, patterns as 'a1*', or groups as depthwise (default: all)",
    )
    speed.add_argument("--list", action="store_true", help="list the cases and stop")
    speed.add_argument("--quick", action="store_true", help="some cases with little effort, in 3 minutes")
    speed.add_argument(
        "--dtype", action="append", default=[], metavar="DTYPE", help="measure in this dtype instead (may be repeated)"
    )
    speed.add_argument(
        "--runs",
        type=int,
        help="how often a case must be slower than a peer to count (default: 3 for a full run, 1 for any other)",
    )
    speed.add_argument(
        "--out", type=Path, help=f"folder of the page (default: {PAGE}/ for a full run, {RESULTS}/ for any other)"
    )
    speed.add_argument(
        "--render",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="write the page from files of earlier measurements",
    )
    speed.set_defaults(handler=_speed)
    calibrate = commands.add_parser(
        "calibrate", help="fit the planner's cost model to this machine", description=_CALIBRATE
    )
    calibrate.add_argument(
        "--count", type=int, default=200, help="random problems to time, for each dtype (default: 200; 0 only fits)"
    )
    calibrate.add_argument("--seed", type=int, default=0, help="seed of the problems (default: 0)")
    calibrate.add_argument(
        "--times", type=Path, default=TIMES, help=f"file that the times are added to (default: {TIMES})"
    )
    calibrate.add_argument("--out", type=Path, default=CONSTANTS, help=f"file of the constants (default: {CONSTANTS})")
    calibrate.add_argument(
        "--before",
        type=Path,
        default=CONSTANTS,
        help=f"file of an earlier calibration, which counts too (default: {CONSTANTS})",
    )
    calibrate.set_defaults(handler=_calibrate)


_SPEED = (
    "Measure jaxconv against JAX, SciPy and torch, on complaints from public trackers, on sweeps and on random shapes."
)
_CALIBRATE = "Fit the constants of the planner's cost model to measured times."


def _speed(options: argparse.Namespace) -> int:
    from experiments.speed import run
    from experiments.speed.cases import UnknownCaseError

    try:
        if options.list:
            run.show(options.names)
        elif options.render:
            run.render(options.render, options.out or PAGE)
        else:
            full = not (options.names or options.quick or options.dtype)
            out = options.out or (PAGE if full else RESULTS)
            runs = options.runs or (RUNS if full else 1)
            dtypes = tuple(options.dtype)
            run.run(options.names, quick=options.quick, dtypes=dtypes, runs=runs, results=RESULTS, out=out)
    except UnknownCaseError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return DONE


def _calibrate(options: argparse.Namespace) -> int:
    from experiments.speed import calibrate

    calibrate.write(options.out, calibrate.calibrate(options.count, options.seed, options.times, options.before))
    print(f"wrote {options.out}")
    return DONE
