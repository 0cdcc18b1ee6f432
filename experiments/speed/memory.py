"""Peak memory of a call, measured in a process of its own: the scratch space of an FFT is invisible to the compiler.

`python -m experiments.speed.memory CASE DIRECTION DTYPE LIBRARY NAME` prints the bytes, or "null" where the system does
not tell.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jax

from experiments.speed import measure, peers
from experiments.speed.cases import Case, registry
from experiments.speed.operations import Direction
from experiments.speed.peers import Way
from experiments.speed.records import Memory

# Cases and directions.
CHOSEN: tuple[tuple[str, Direction], ...] = (
    ("a2", "forward"),
    ("a8-neurons", "forward"),
    ("a12", "forward"),
    ("f10", "forward"),
    ("signal-1000000x1024", "forward"),
    ("signal-1000000x1024", "kernel"),
    ("dense-8x56x56x64-3x3x64", "forward"),
    ("dense-8x56x56x64-3x3x64", "kernel"),
    ("depthwise-8x56x56x64-3x3x64", "kernel"),
)
TIMEOUT = 120
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_all(case: Case, direction: Direction) -> list[Memory]:
    """Measure every way of a case, one process after the other."""
    found = peers.ways(case.operation, direction)
    bearable = [way for way in found if measure.expected_seconds(case, way) <= case.patience]
    return [_in_process(case, direction, case.dtypes[0], way) for way in bearable]


def _in_process(case: Case, direction: Direction, dtype: str, way: Way) -> Memory:
    arguments = (case.name, direction, dtype, way.library, way.name)
    operands = measure.operand_bytes(case, dtype)
    command = [sys.executable, "-m", "experiments.speed.memory", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except subprocess.TimeoutExpired:
        return Memory(*arguments, operands, None, f"not finished after {TIMEOUT} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        return Memory(*arguments, operands, None, last[:120])
    return Memory(*arguments, operands, json.loads(done.stdout.splitlines()[-1]))


def peak(case: Case, direction: Direction, dtype: str, library: str, name: str) -> int | None:
    """Return by how many bytes the first call raises the resident set at its peak, the result included."""
    with jax.enable_x64(True):
        first, second = measure.operands(case, direction, dtype)
        found = peers.ways(case.operation, direction)
        way = next(way for way in found if (way.library, way.name) == (library, name))
        arguments = way.prepare(first, second)
        run = jax.jit(way.fn).lower(*arguments).compile() if way.traced else way.fn
        gc.collect()
        _return_memory()
        if not _reset_peak():
            return None
        before = _status("VmRSS")
        jax.block_until_ready(run(*arguments))
        return _status("VmHWM") - before


def _return_memory() -> None:
    """Give what the compiler has freed back to the system, so that the call cannot reuse it unnoticed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        return


def _reset_peak() -> bool:
    """Set the recorded peak to the present value; False where that cannot be done."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return _status("VmHWM") - _status("VmRSS") < 2**20


def _status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"{STATUS} has no field {field}")


def main(arguments: Sequence[str]) -> None:
    """Print the peak of one way."""
    name, direction, dtype, library, way = arguments
    print(json.dumps(peak(registry()[name], cast(Direction, direction), dtype, library, way)))


if __name__ == "__main__":
    main(sys.argv[1:])
