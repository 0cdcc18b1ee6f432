"""The command line: `python -m experiments list`, `run`, `article`, `speed` and `calibrate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from experiments import article, report, runner
from experiments.core import Context, NonFiniteError
from experiments.speed import cli as speed

HOLD, FAIL, STOPPED = 0, 1, 2  # exit statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if every claim holds, 1 if one fails, 2 if the run could not be finished."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "list":
        _list()
        return HOLD
    if options.command == "article":
        return _article(parser, options.folders)
    if options.command in ("speed", "calibrate"):
        return options.handler(options)
    if options.names and options.all:
        parser.error("name experiments or say --all, not both")
    if unknown := [name for name in options.names if name not in runner.EXPERIMENTS]:
        parser.error(f"unknown experiment {unknown[0]!r}; known are {', '.join(runner.EXPERIMENTS)}")
    headline = [name for name, experiment in runner.EXPERIMENTS.items() if experiment.headline]
    names = list(runner.EXPERIMENTS) if options.all else list(dict.fromkeys(options.names)) or headline
    context = Context(seed=options.seed, quick=options.quick, x64=options.x64)
    with ExitStack() as stack:
        if options.device:
            stack.enter_context(jax.default_device(_device(parser, options.device)))
        stack.enter_context(jax.enable_x64(options.x64))
        try:
            results = runner.run(names, context, options.out, resume=options.resume)
        except NonFiniteError as error:
            print(f"stopped: {error}", file=sys.stderr)
            return STOPPED
    _summarise(results)
    print(f"\nreport: {options.out / 'index.html'}")
    return HOLD if results["holds"] else FAIL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=runner.__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the experiments and the questions they answer")
    speed.register(commands)
    run = commands.add_parser("run", help="run experiments and write a report")
    run.add_argument(
        "names", nargs="*", metavar="NAME", help="experiments to run (default: those marked * in the list)"
    )
    run.add_argument("--all", action="store_true", help="run every experiment")
    run.add_argument("--seed", type=_natural, default=0, help="seed of all that is random (default: 0)")
    run.add_argument(
        "--device", help="platform, such as cpu or gpu, or one device of it, such as gpu:1 (default: JAX's)"
    )
    run.add_argument("--x64", action="store_true", help="compute in float64 what does not choose its own precision")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (default: results/)")
    run.add_argument("--quick", action="store_true", help="fewer cases, under 30 seconds for each experiment")
    run.add_argument(
        "--resume", action="store_true", help="keep what an interrupted run with the same settings has finished"
    )
    write = commands.add_parser("article", help="renew the numbers and figures of the article in docs/")
    write.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="results of full runs, the least favourable of which is quoted (default: results/)",
    )
    return parser


def _article(parser: argparse.ArgumentParser, folders: Sequence[Path]) -> int:
    try:
        files = article.write(folders or [Path("results")])
    except article.ArticleError as error:
        parser.error(str(error))
    print(*files, sep="\n")
    return HOLD


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is an integer from 0 upwards, not {text!r}")
    return int(text)


def _device(parser: argparse.ArgumentParser, name: str) -> Any:
    """Return a device's or a platform's proper value for JAX, or end the program with the names that there are."""
    platform, _, index = name.partition(":")
    try:
        devices = jax.devices(platform)
    except RuntimeError as error:
        known = sorted({device.platform for device in jax.devices()} | {"cpu"})
        parser.error(f"no device of platform {platform!r} ({error}); there are {', '.join(known)}")
    if index and not (index.isdecimal() and int(index) < len(devices)):
        parser.error(f"no device {name!r}; {platform} has the numbers 0 to {len(devices) - 1}")
    return devices[int(index)] if index else platform


def _list() -> None:
    width = max(map(len, runner.EXPERIMENTS))
    for name, experiment in runner.EXPERIMENTS.items():
        print(f"{'*' if experiment.headline else ' '} {name:{width}}  {experiment.question}")


def _summarise(results: dict[str, Any]) -> None:
    for entry in results["experiments"]:
        print(f"\n{entry['name']} ({entry['seconds']:.0f} s)")
        for claim in entry["claims"]:
            print(f"  {'holds' if claim['holds'] else 'FAILS'}  {claim['id']}: {report.inequality(claim)}")
