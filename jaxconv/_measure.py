"""Measuring the candidates for one convolution: which to try, how to time them, which wins.

A candidate is tried by the very mechanism that will choose it: a table in the specification that names it the winner.
So the compiled program is the one that users will run, with whatever the candidate runs inside.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import REGISTRY
from jaxconv._algorithms._once import Call
from jaxconv._cost import is_calibrated
from jaxconv._dtypes import is_complex, is_inexact
from jaxconv._plan import HEAVY_ADVANTAGE, Candidate, decide, ruled_out, too_much_scratch
from jaxconv._primitive import bind
from jaxconv._spec import Problem
from jaxconv._text import duration
from jaxconv._tuning import Measurement, Setting, Timing, Tuning, tuned

# Not even tried: what the model takes to be so many times slower than its own choice. On a platform without
# measurements the model only counts operations.
HOPELESS_BY_MODEL = 20.0
HOPELESS_BY_WORK = 100.0
# Not taken: what takes longer to compile, in seconds.
SLOWEST_COMPILATION = 10.0
# Calls shorter than SHORT seconds are repeated in one program until it takes twice as long, up to MOST_REPEATS times if
# that compiles in LONGEST_COMPILATION seconds at most: they would be hidden behind what any call takes, up to 0.1 ms.
SHORT, MOST_REPEATS, LONGEST_COMPILATION = 1e-3, 16, 1.5
# Rounds in which every candidate is called once, in turn: at least and at most. After the FEWEST-th a candidate is
# dropped if its shortest time is LAGGING times the leader's median, and none begins after LONGEST_RACE seconds.
FEWEST, MOST, LAGGING, LONGEST_RACE = 3, 15, 1.3, 1.0
# What takes less than WARMED seconds is called once more before each sample, untimed, so that it meets its own operands
# in the caches and its threads awake.
WARMED = 0.005
# Just below the size from which glibc never keeps what is freed.
_LARGE = 31 * 2**20
# What takes LONG seconds is not repeated to warm up, and is dropped at once if it is HOPELESS times slower. What takes
# less stays for some rounds: a single slow call may be another process's doing.
LONG, HOPELESS = 0.05, 5.0


@dataclasses.dataclass
class Trial:
    """A candidate that is compiled: ``call`` runs it ``repeats`` times, and ``samples`` are the seconds of one run."""

    call: Callable[[], Any]
    repeats: int
    samples: list[float]


def measure(problem: Problem, setting: Setting, tuning: Tuning) -> Measurement | None:
    """Measure the candidates for a simplified problem on the default device.

    Parameters
    ----------
    problem
        The problem, with the promise of its method (see `jaxconv._plan.as_measured`).
    setting
        Where this is measured.
    tuning
        What was measured before: the algorithms that only rearrange run inside what is the fastest by it.

    Returns
    -------
    Measurement or None
        None if nothing could be measured.
    """
    settle_allocator()
    able = candidates(problem, setting.platform, tuning)
    heavy = {c.name: reason for c in able if c.cost and (reason := too_much_scratch(problem, c.cost))}
    notes = _not_tried(able, heavy, setting.platform)
    operands = draw_operands(problem)
    trials: dict[str, Trial] = {}
    for candidate in able:
        name = candidate.name
        if name in notes:
            continue
        trial = _with_table(problem, tuning | Tuning([Measurement(setting, problem, name, ())]))
        try:
            prepared = prepare(trial, operands)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            notes[name] = f"failed: {(str(error).strip() or type(error).__name__).splitlines()[0][:100]}"
            continue
        if isinstance(prepared, Trial):
            trials[name] = prepared
        else:
            notes[name] = prepared
    if not trials:
        return None
    race(trials)
    medians = {name: float(np.median(trial.samples)) for name, trial in trials.items()}
    chosen = min(medians, key=lambda name: medians[name] * (HEAVY_ADVANTAGE if name in heavy else 1.0))
    for name, median in medians.items():
        notes[name] = "" if name == chosen else heavy.get(name) or f"{median / medians[chosen]:.1f} times slower"
    timings = (Timing(c.name, c.inner, c.seconds or 0.0, medians.get(c.name), notes[c.name]) for c in able)
    return Measurement(setting, problem, chosen, tuple(timings))


def settle_allocator() -> None:
    """Bring the memory of this process to the state in which that of a program is that has run for a while.

    glibc maps arrays afresh at every call, whose page faults can take longer than a convolution, until a large one has
    been freed: from then on it keeps what is freed, of arrays up to that size and at most 32 MiB.
    """
    bytearray(_LARGE)


def candidates(problem: Problem, platform: str, tuning: Tuning) -> list[Candidate]:
    """Return the algorithms that can run a problem and that its method admits, those first that the model prefers."""
    decision = decide(_with_table(problem, tuning), platform)
    able = [c for c in decision.candidates if c.cost is not None]
    able = [c for c in able if not ruled_out(REGISTRY[c.name], problem.spec.forward_method)]
    return sorted(able, key=lambda c: c.seconds or 0.0)


def race(trials: Mapping[str, Trial]) -> None:
    """Time trials in turn, so that all meet the same disturbances, and drop early those that cannot win."""
    running, deadline = list(trials.values()), time.perf_counter() + LONGEST_RACE
    for number in range(1, MOST + 1):
        best = min(float(np.median(trial.samples)) for trial in running)
        if number > FEWEST:
            running = [trial for trial in running if min(trial.samples) <= LAGGING * best]
            if len(running) == 1 or time.perf_counter() > deadline:
                return
        else:
            running = [trial for trial in running if min(trial.samples) <= max(HOPELESS * best, LONG)]
        running.reverse()
        for trial in running:
            if min(trial.samples) * trial.repeats < WARMED:
                jax.block_until_ready(trial.call())
            trial.samples.append(_seconds(trial.call) / trial.repeats)


def _with_table(problem: Problem, tuning: Tuning) -> Problem:
    return dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, tuning=tuning))


def _not_tried(able: list[Candidate], heavy: Mapping[str, str], platform: str) -> dict[str, str]:
    """Return the candidates that are not worth trying, and why."""
    limit = HOPELESS_BY_MODEL if is_calibrated(platform) else HOPELESS_BY_WORK
    modelled = {c.name: c.seconds for c in able if c.seconds is not None}
    weighted = {name: time * (HEAVY_ADVANTAGE if name in heavy else 1.0) for name, time in modelled.items()}
    favourite = min(weighted, key=weighted.__getitem__)
    reasons = {}
    for name, seconds in modelled.items():
        ratio = seconds / modelled[favourite]
        if ratio > limit:
            reasons[name] = f"not measured: {ratio:.0f} times slower by the model"
        elif name in heavy and name != favourite:
            reasons[name] = f"not measured: {heavy[name]}"
    return reasons


def prepare(problem: Problem, operands: tuple[jax.Array, ...]) -> Trial | str:
    """Compile a problem and warm it up, which gives the first sample; or return why it is not taken."""
    convolve = functools.partial(convolve_held, problem=problem)
    run, compilation = _compile(convolve, operands)
    if compilation > SLOWEST_COMPILATION:
        return f"takes {duration(compilation)} to compile"
    call = functools.partial(run, *operands)
    single = _seconds(call)
    if single < LONG:
        single = min(single, _seconds(call))
    count = repeats(single, compilation)
    if count == 1:
        return Trial(call, 1, [single])
    call = chained(convolve, count, operands)
    return Trial(call, count, [min(_seconds(call) for _ in range(2)) / count])


def _compile(
    fn: Callable[..., Any], operands: tuple[jax.Array, ...], donated: tuple[int, ...] = ()
) -> tuple[Any, float]:
    start = time.perf_counter()
    with tuned(None):  # the table, if any, is in the specification
        compiled = jax.jit(fn, donate_argnums=donated).lower(*operands).compile()
    return compiled, time.perf_counter() - start


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def repeats(seconds: float, compilation: float = 0.0) -> int:
    """Return how often to repeat in one program what takes so many seconds, and so many to compile."""
    if seconds >= SHORT:
        return 1
    return max(1, min(MOST_REPEATS, int(2 * SHORT / seconds) + 1, int(LONGEST_COMPILATION / max(compilation, 1e-3))))


def chained(fn: Callable[[Any, Any], jax.Array], count: int, operands: Sequence[Any]) -> Callable[[], list[jax.Array]]:
    """Compile a function of two operands for calls that run it so often, each on what the last one left of them."""
    first, second = (jnp.array(operand, copy=True) for operand in operands)
    (device,) = first.devices()
    zero = jnp.zeros((), second.dtype)
    run, _ = _compile(repeated(fn, count, device.platform), (first, second, zero), donated=(0, 1))

    def call() -> list[jax.Array]:
        nonlocal first, second
        results, first, second = run(first, second, zero)
        return results

    return call


def repeated(
    fn: Callable[[Any, Any], jax.Array], count: int, platform: str
) -> Callable[..., tuple[list[jax.Array], jax.Array, jax.Array]]:
    """Return a function of two operands and a zero that calls another one so often; its results, and both operands.

    Both operands depend on the result before, as far as XLA can know: to their first elements it adds that result's
    first element times the zero. Were only one of them to change, XLA would do what an algorithm does to the other once
    for all: it removes the barriers, which keep it from moving work between calls, before it looks for equal
    operations. Unrolled, since in the body of a loop XLA on CPU computes some convolutions in another, much slower way.

    On CPU only the last result is returned, so that all share memory, as those of separate calls do; and operands
    change in calls that are not inlined, which need the whole result, and change them where they stand, if they are
    donated: what is fused with the change makes copies of them, which can take longer than a convolution. Elsewhere,
    where calls are inlined, all results are returned, since of what is not XLA may compute the first element alone.
    """
    once = Call(platform)

    def run(first: jax.Array, second: jax.Array, zero: jax.Array) -> tuple[list[jax.Array], jax.Array, jax.Array]:
        results: list[jax.Array] = []
        for _ in range(count):
            result, first, second = lax.optimization_barrier((fn(first, second), first, second))
            results.append(result)
            changed = (once.apart(_changed, operand, result, zero) for operand in (first, second))
            first, second = lax.optimization_barrier(tuple(changed))
        return results[-1:] if platform == "cpu" else results, first, second

    return run


def _changed(operand: jax.Array, result: jax.Array, zero: jax.Array) -> jax.Array:
    """Add a zero to the first element of an operand, which depends on that of a result."""
    change = zero * lax.slice(result, (0,) * result.ndim, (1,) * result.ndim).astype(zero.dtype)
    first = lax.slice(operand, (0,) * operand.ndim, (1,) * operand.ndim)
    changed = first + change.reshape(first.shape).astype(operand.dtype)
    return lax.dynamic_update_slice(operand, changed, (0,) * operand.ndim)


def held_shapes(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Return the shapes in which the caller holds x and w."""
    shapes = (problem.x_shape, problem.w_shape)
    return tuple(tuple(shape[a] for a in order) for shape, order in zip(shapes, problem.spec.orders, strict=False))


def convolve_held(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """Convolve operands as the caller holds them, to a result as he holds it."""
    x_order, w_order, y_order = problem.spec.orders
    x, w = x.transpose(np.argsort(x_order)), w.transpose(np.argsort(w_order))
    return bind(x, w, problem.spec).transpose(y_order)


def draw_operands(problem: Problem) -> tuple[jax.Array, ...]:
    """Draw operands on the default device, as the caller holds them: standard normal, or small integers."""
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(_draw(rng, shape, problem.dtype)) for shape in held_shapes(problem))


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    few = min(math.prod(shape), 2**20)  # large arrays repeat themselves
    if not is_inexact(dtype):
        values = rng.integers(0, 4, few)
    else:
        values = rng.standard_normal(few, np.float32)
        values = values + 1j * rng.standard_normal(few, np.float32) if is_complex(dtype) else values
    return np.resize(values.astype(dtype), shape)
