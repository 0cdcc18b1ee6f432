"""Measure all ways of a case, one against the other, in one process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxconv
from experiments.speed import peers, timing
from experiments.speed.cases import Case
from experiments.speed.operations import Direction, Signal, elements, operand_names
from experiments.speed.peers import Way
from experiments.speed.records import Record, Timing
from experiments.speed.reference import Reference, reference
from jaxconv import _measure
from jaxconv._algorithms import REGISTRY
from jaxconv._plan import Decision

# Where `jaxconv.autotune` would repeat the fastest way of a case inside one call, all are repeated equally often that
# take at most LONGEST seconds.
LONGEST = 5e-3
# OpenMP's threads spin for some milliseconds after each of torch's calls, and would slow down whoever comes next.
PAUSES = {"torch": 0.012}
# Multiply-adds a second of ways that go by the definition: what a call will take, roughly. One channel and layers.
RATES = {"jax": (2e9, 2e9), "scipy": (3e8, 3e8), "torch": (4e8, 2e9)}


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes
    ----------
    budget
        Seconds for the samples of all ways of a case together.
    rivals
        Which of our own algorithms to measure beside the chosen one: those that the model takes to be at most this many
        times slower. None if 0.
    patience
        Caps that of the cases.
    """

    budget: float = 0.6
    rivals: float = 20.0
    patience: float = 10.0


def record(case: Case, direction: Direction, dtype: str, effort: Effort = Effort()) -> Record:
    """Measure one direction of a case in one dtype."""
    case = dataclasses.replace(case, patience=min(case.patience, effort.patience))
    with jax.enable_x64(True):
        first, second = operands(case, direction, dtype)
        found, left_out = peers.ways(case.operation, direction), []
        ready = []
        exact = reference(case.operation, direction, first, second)
        decision = _decision(found[0], found[0].prepare(first, second))
        if decision is not None and effort.rivals:
            found += rivals(case, direction, decision, effort.rivals)
        for way in found:
            expected = expected_seconds(case, way)
            if expected > case.patience:
                left_out.append(f"{way.library} {way.name}: a call would take about {expected:.0f} s")
                continue
            try:
                ready.append(_Ready(way, first, second, exact))
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
                if way.library in ("jaxconv", "own"):
                    raise
                reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
                left_out.append(f"{way.library} {way.name}: {reason}")
        fastest = min(each.single for each in ready)
        for each in ready:
            each.repeat(fastest)
        samples = timing.interleaved(
            [each.call for each in ready], [PAUSES.get(each.way.library, 0.0) for each in ready], effort.budget
        )
        timings = tuple(each.timing(times) for each, times in zip(ready, samples, strict=True))
    if decision is None:
        return Record(case.name, direction, dtype, timings, left_out=tuple(left_out))
    chosen = next(candidate for candidate in decision.candidates if candidate.name == decision.chosen)
    return Record(
        case.name,
        direction,
        dtype,
        timings,
        decision.chosen,
        chosen.cost.error if chosen.cost else None,
        REGISTRY[decision.chosen].uses_fft,
        tuple(left_out),
    )


def operands(case: Case, direction: Direction, dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the operands of a direction: standard normal, or small integers."""
    rng = np.random.default_rng(seed)
    kind = jax.numpy.dtype(dtype)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if kind.kind in "iu":
            return rng.integers(0, 3, shape).astype(kind)
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape) if kind.kind == "c" else values).astype(kind)

    first, second, _ = operand_names(direction)
    return draw(case.operation.shapes[first]), draw(case.operation.shapes[second])


def rivals(case: Case, direction: Direction, decision: Decision, factor: float) -> list[Way]:
    """Return our own algorithms that could have been chosen, and that the model takes to be at most `factor` slower."""
    chosen = next(candidate for candidate in decision.candidates if candidate.name == decision.chosen)
    found = []
    for candidate in decision.candidates:
        if candidate.seconds is None or chosen.seconds is None or candidate is chosen:
            continue
        admitted = case.operation.method == "auto" or REGISTRY[candidate.name].local
        if admitted and candidate.seconds <= min(factor * chosen.seconds, case.patience):
            way = peers.ours(case.operation, direction, candidate.name)
            found.append(dataclasses.replace(way, library="own"))
    return found


def _decision(ours: Way, arguments: tuple[Any, Any]) -> Decision | None:
    """Return what the planner decides for the convolution that is measured; None if there is not exactly one."""
    report = jaxconv.plan(ours.fn, *arguments)
    return report[0].forward if len(report) == 1 else None


def expected_seconds(case: Case, way: Way) -> float:
    """Return how long a call of a way that goes by the definition will take, roughly; 0 for the others."""
    if not way.multiply_adds:
        return 0.0
    return way.multiply_adds / RATES[way.library][0 if isinstance(case.operation, Signal) else 1]


class _Ready:
    """A way that is compiled and warmed up, and takes about ``single`` seconds: `call` runs it, ``repeats`` times."""

    def __init__(self, way: Way, first: np.ndarray, second: np.ndarray, exact: Reference):
        self.way, self.repeats = way, 1
        self._arguments: tuple[Any, ...] = way.prepare(first, second)
        self.compile_seconds: float | None = None
        self._run: Callable[..., Any] = way.fn
        if way.traced:
            self._run, self.compile_seconds = _compiled(way.fn, self._arguments)
        start = time.perf_counter()
        result = _finished(self._run(*self._arguments))
        self.single = time.perf_counter() - start
        self.errors = exact.errors(way.read(result))
        if self.single <= 10 * LONGEST:  # whatever a first call may take beside
            self.single = min(timing.seconds_of(self.call) for _ in range(2))

    def call(self) -> None:
        """Run the way, and wait until it has finished."""
        result = None
        for _ in range(1 if self.way.traced else self.repeats):
            result = self._run(*self._arguments)
        _finished(result)

    def repeat(self, fastest: float) -> None:
        """Repeat the way inside one call as often as one that takes so many seconds, or less if it compiles slowly."""
        times = _measure.repeats(fastest, self.compile_seconds or 0.0)
        if times == 1 or self.single > LONGEST:
            return
        if self.way.traced:
            self._run, self._arguments = _measure.chained(self.way.fn, times, self._arguments), ()
        self.repeats = times
        self.call()

    def timing(self, times: list[float]) -> Timing:
        seconds = np.array(times) / self.repeats
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        return Timing(
            self.way.library,
            self.way.name,
            _rounded(median),
            _rounded((high - low) / (2 * median)),
            _rounded(seconds.min()),
            len(times),
            self.repeats,
            None if self.compile_seconds is None else _rounded(self.compile_seconds),
            *map(_rounded, dataclasses.astuple(self.errors)),
        )


def _compiled(fn: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], float]:
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def _finished(result: Any) -> Any:
    """Wait for JAX; the others have finished when they return."""
    return jax.block_until_ready(result)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def warm_up() -> None:
    """Compile something and settle the allocator, so that the first cases do not pay for what happens once."""
    _measure.settle_allocator()
    with jax.enable_x64(True):
        for dtype in ("float32", "float64"):
            x = jax.numpy.ones((4, 64), dtype)
            _compiled(lambda a, b: jax.numpy.fft.irfft(jax.numpy.fft.rfft(a + b)), (x, x))


def operand_bytes(case: Case, dtype: str) -> int:
    """Bytes of both operands and of the result."""
    return elements(case.operation) * jax.numpy.dtype(dtype).itemsize
