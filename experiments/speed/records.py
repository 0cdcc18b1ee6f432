"""What was measured, as data that can be written and read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """One way's measurement. Times are in seconds.

    Attributes
    ----------
    library, name
        Whose way it is. Library "own" stands for an algorithm of jaxconv that the planner did not choose.
    median, spread, fastest
        Of all samples; the spread is half the distance between the quartiles over the median.
    samples, repeats
        Number of samples, and of runs in each.
    compile_seconds
        Tracing and compiling; None for libraries that do not compile.
    relative, local, norm
        Largest errors (see `experiments.speed.reference.Errors`).
    """

    library: str
    name: str
    median: float
    spread: float
    fastest: float
    samples: int
    repeats: int
    compile_seconds: float | None
    relative: float
    local: float
    norm: float


@dataclasses.dataclass(frozen=True)
class Record:
    """All that was measured of one direction of one case in one dtype, in one run.

    Attributes
    ----------
    algorithm, bound, uses_fft
        What the planner chose, the bound that it states for the error, and to what it relates; None if the case is no
        single convolution.
    left_out
        Ways that were not run, and why.
    """

    case: str
    direction: str
    dtype: str
    timings: tuple[Timing, ...]
    algorithm: str | None = None
    bound: float | None = None
    uses_fft: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.case, self.direction, self.dtype

    def best(self, *libraries: str) -> Timing | None:
        """Return the fastest way of some libraries; None if none was measured."""
        found = [timing for timing in self.timings if timing.library in libraries]
        return min(found, key=lambda timing: timing.median) if found else None

    @property
    def ours(self) -> Timing:
        return next(timing for timing in self.timings if timing.library == "jaxconv")

    def ratio(self, *libraries: str) -> float | None:
        """Return how many times longer the fastest of some libraries takes than jaxconv."""
        best = self.best(*libraries)
        return None if best is None else best.median / self.ours.median

    @property
    def regret(self) -> float | None:
        """Time of the chosen algorithm over the fastest of our own; None if the others were not measured."""
        if self.algorithm is None or not any(timing.library == "own" for timing in self.timings):
            return None
        fastest = self.best("jaxconv", "own")
        return None if fastest is None else self.ours.median / fastest.median


@dataclasses.dataclass(frozen=True)
class Loop:
    """Seconds that a step takes when called from Python and inside `jax.lax.scan`, and the same for `jax.lax`."""

    name: str
    what: str
    method: str
    dtype: str
    outside: float
    inside: float
    jax_outside: float | None
    jax_inside: float | None


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds that a training step of a model takes alone and inside `jax.lax.scan`, and to compile alone.

    None where a library has neither.
    """

    model: str
    library: str
    dtype: str
    alone: float
    inside: float | None
    compile_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Memory:
    """Peak of the resident set in a call, in bytes beyond what was resident before; None if it failed."""

    case: str
    direction: str
    dtype: str
    library: str
    name: str
    operands: int
    peak: int | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """Seconds that an eager call takes beyond that of an empty jitted function."""

    name: str
    seconds: float
    beyond_empty: float


@dataclasses.dataclass
class Results:
    """All measurements of a run, and where and how they were made."""

    setting: dict[str, Any]
    records: list[Record] = dataclasses.field(default_factory=list)
    loops: list[Loop] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    memory: list[Memory] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)

    def add(self, item: Record | Loop | Step | Memory | Call) -> None:
        self._list(type(item)).append(item)

    def _list(self, kind: type) -> list[Any]:
        return {Record: self.records, Loop: self.loops, Step: self.steps, Memory: self.memory, Call: self.calls}[kind]


KINDS: dict[str, type] = {kind.__name__: kind for kind in (Record, Loop, Step, Memory, Call)}


def line(item: Any) -> str:
    """Write a measurement, or the setting, as one line of JSON."""
    if isinstance(item, dict):
        return json.dumps({"kind": "setting", **item}) + "\n"
    return json.dumps({"kind": type(item).__name__, **dataclasses.asdict(item)}) + "\n"


def read(paths: Iterable[Path]) -> Results:
    """Read the lines of one or more files; the setting is that of the first.

    Raises
    ------
    ValueError
        If the files hold no setting.
    """
    results: Results | None = None
    for path in paths:
        for text in path.read_text().splitlines():
            entry = json.loads(text)
            kind = entry.pop("kind")
            if kind == "setting":
                results = results or Results(entry)
                continue
            if results is None:
                raise ValueError(f"{path} does not start with the setting in which it was measured")
            if kind == "Record":
                entry["timings"] = tuple(Timing(**timing) for timing in entry["timings"])
                entry["left_out"] = tuple(entry["left_out"])
            results.add(KINDS[kind](**entry))
    if results is None:
        raise ValueError("there are no measurements to read")
    return results
