"""The planner: from a problem to the cheapest algorithm, with reasons.

Plain Python on shapes; deterministic; microseconds a problem. It runs when a convolution is lowered, never in a call
that is compiled already.
"""

import dataclasses
import functools
import math
from typing import TypeAlias

from jaxconv._algorithms import REGISTRY, Algorithm
from jaxconv._cost import Cost, is_calibrated, seconds
from jaxconv._simplify import simplify
from jaxconv._spec import Method, Problem
from jaxconv._text import duration, perhaps
from jaxconv._tuning import Measurement, Tuning

# Methods that name a choice rather than an algorithm.
CHOICES = ("auto", "direct")
# On a platform that nobody has measured an algorithm replaces XLA's convolution only if it does this much less work.
UNCALIBRATED_ADVANTAGE = 4.0
# An algorithm that holds more than SCRATCH_FACTOR times operands and result, beyond SCRATCH_FREE bytes, is chosen only
# if it is HEAVY_ADVANTAGE times faster than the others.
SCRATCH_FACTOR = 4
SCRATCH_FREE = 64 * 2**20
HEAVY_ADVANTAGE = 5.0
# What the model cannot tell apart from XLA's convolution is left to that: it takes the least time to compile.
XLA_ADVANTAGE = 1.1
# Likewise, what it cannot tell apart from an algorithm that runs another one inside, or that blurs exact zeros by a
# Fourier transform, is left to those that do neither.
PLAIN_ADVANTAGE = 1.1
# A Fourier transform has to save so many seconds as well, which of a short computation the model does not know.
FFT_SAVES = 3e-6

# How operands may be sharded: over at most so many devices along each of some of `jaxconv._algorithms.AXES`.
Spread: TypeAlias = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What the planner knows of one algorithm for one problem.

    Attributes
    ----------
    name
        The algorithm's name.
    cost
        What it would do; ``None`` if it cannot run the problem.
    seconds
        Modelled time; ``None`` if it cannot run the problem.
    reason
        Why it was not chosen; empty for the chosen one.
    inner
        The algorithm that it would run inside, if it is one that only rearranges operands and result.
    measured
        Measured seconds; ``None`` if it was not measured (see `jaxconv.autotune`).
    gathers
        What data it would move between devices, where XLA shards the operands; empty if none.
    """

    name: str
    cost: Cost | None
    seconds: float | None
    reason: str
    inner: str | None = None
    measured: float | None = None
    gathers: str = ""


@dataclasses.dataclass(frozen=True)
class Decision:
    """The outcome for one problem: the chosen algorithm and every candidate, in the order of the registry.

    ``source`` says where the choice came from: ``"measured"`` (by `jaxconv.autotune`), ``"modelled"``, or
    ``"asked for"`` by its name.
    """

    problem: Problem
    platform: str
    chosen: str
    candidates: tuple[Candidate, ...]
    source: str


def method_names() -> tuple[str, ...]:
    """Return every valid name of a method."""
    return (*CHOICES, *REGISTRY)


def check_method(method: object) -> Method:
    """Return the method if it is a valid one.

    Raises
    ------
    ValueError
        If it is neither a known name nor a triple of known names.
    """
    names = method_names()
    if isinstance(method, str):
        if method in names:
            return method
    elif isinstance(method, (tuple, list)) and len(method) == 3 and all(name in names for name in method):
        return (method[0], method[1], method[2])
    hint = perhaps(method, names) if isinstance(method, str) else ""
    raise ValueError(
        f"unknown method {method!r}: choose one of {', '.join(map(repr, names))}, or a triple of those for the forward "
        f"computation, the input gradient and the kernel gradient{hint}"
    )


def check_supported(problem: Problem, method: Method) -> None:
    """Check that the algorithms which the user named can run what they were named for.

    A single name must run the forward computation (its gradients inherit it where they can); a triple must run all
    three.

    Raises
    ------
    ValueError
        If one cannot, with the reason.
    """
    if not problem.static:
        return
    if isinstance(method, str):
        asked = [("this convolution", method, problem)]
    else:
        problems = (problem, problem.input_gradient(), problem.kernel_gradient())
        roles = ("this convolution", "the gradient of its input", "the gradient of its kernel")
        asked = list(zip(roles, method, problems, strict=True))
    for role, name, target in asked:
        if name in CHOICES or target.empty:
            continue
        simple, _ = simplify(target)
        reason = None if simple.empty else REGISTRY[name].supports(simple)
        if reason is not None:
            able = [a.name for a in REGISTRY.values() if a.supports(simple) is None]
            raise ValueError(
                f"method {name!r} cannot compute {role} (x {simple.x_shape}, kernel {simple.w_shape}): {reason}. "
                f"These can: {', '.join(map(repr, able))}; or leave the choice to 'auto' or 'direct'"
            )


def choose(problem: Problem, platform: str, spread: Spread = ()) -> Algorithm:
    """Return the algorithm for a simplified problem."""
    return REGISTRY[decide(problem, platform, spread).chosen]


def with_choices_of(problem: Problem, inner: Problem) -> Problem:
    """Return the inner problem of an algorithm, free to take any method that the outer problem admits."""
    method = problem.spec.forward_method
    method = method if method in CHOICES else "direct"
    return dataclasses.replace(inner, spec=dataclasses.replace(inner.spec, method=method))


def as_measured(problem: Problem) -> Problem:
    """Return a simplified problem as tables of measured winners hold it: with the promise of its method, no table."""
    method = problem.spec.forward_method
    if method in REGISTRY and not ruled_out(REGISTRY["fft"], method):
        method = "auto"
    elif method in REGISTRY and REGISTRY[method].local:
        method = "direct"
    return dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, method=method, tuning=None))


def find_measured(problem: Problem, platform: str) -> Measurement | None:
    """Return what the problem's own table says of it; None if that is nothing, or nothing that it may take."""
    tuning: Tuning | None = problem.spec.tuning
    found = None if tuning is None else tuning.find(platform, as_measured(problem))
    if found is None or found.chosen not in REGISTRY:
        return None
    algorithm = REGISTRY[found.chosen]
    if algorithm.supports(problem) is not None or ruled_out(algorithm, problem.spec.forward_method):
        return None
    return found


def assumed_spread(devices: int) -> Spread:
    """Return how operands may be sharded over so many devices, if nothing is known: as models are trained.

    Over the batch, which is the input channels of the kernel gradient, or over the groups, which are the models of a
    `vmap`. Sharded output channels are rarer, and what they would rule out is worth much: phases of transposed layers.
    """
    return () if devices == 1 else tuple((axis, devices) for axis in ("groups", "batch", "in_channels"))


def spread_inside(algorithm: Algorithm, spread: Spread) -> Spread:
    """Return how the operands of an algorithm's inner problem may be sharded, if its own are so."""
    if not algorithm.exchanges:
        return spread
    other = {"batch": "out_channels", "out_channels": "batch"}
    return tuple((other.get(axis, axis), devices) for axis, devices in spread)


@functools.lru_cache(maxsize=8192)
def decide(problem: Problem, platform: str, spread: Spread = ()) -> Decision:
    """Weigh every algorithm for a simplified problem.

    A method that names an algorithm is taken at its word where that algorithm can run the problem. Where it cannot, as
    may happen in a gradient, which has a shape of its own, the planner chooses among those that promise as much as the
    one that was asked for: no FFT if that is none, and local if that is. If the specification's table has measured the
    problem, the measured winner is chosen, otherwise the modelled one.

    ``spread`` says how XLA may shard the operands by itself. What would have to gather them then holds and computes
    everything on every device: it is chosen only if it is faster by the number of devices and `HEAVY_ADVANTAGE`, and a
    winner that was measured on one device does not count.
    """
    method = problem.spec.forward_method
    candidates = {name: _candidate(algorithm, problem, platform, spread) for name, algorithm in REGISTRY.items()}
    found = find_measured(problem, platform)
    if method in REGISTRY and candidates[method].cost is not None:
        chosen, source, reasons = method, "asked for", dict.fromkeys(candidates, f"method={method!r} was asked for")
    elif found is not None and not candidates[found.chosen].gathers:
        chosen, source, reasons = found.chosen, "measured", {t.algorithm: t.note for t in found.timings}
        times = {t.algorithm: t.measured for t in found.timings}
        candidates = {name: dataclasses.replace(c, measured=times.get(name)) for name, c in candidates.items()}
    else:
        chosen, reasons = _by_model(problem, platform, candidates, spread)
        source = "modelled"
    for name, candidate in candidates.items():
        if candidate.cost is not None:
            reason = "" if name == chosen else reasons.get(name) or ruled_out(REGISTRY[name], method)
            candidates[name] = dataclasses.replace(candidate, reason=reason)
    return Decision(problem, platform, chosen, tuple(candidates.values()), source)


def _by_model(
    problem: Problem, platform: str, candidates: dict[str, Candidate], spread: Spread
) -> tuple[str, dict[str, str]]:
    """Return the algorithm with the shortest modelled time, and for each that can run the problem why it lost."""
    method = problem.spec.forward_method
    costs = {name: c.cost for name, c in candidates.items() if c.cost is not None}
    times = {name: c.seconds for name, c in candidates.items() if c.seconds is not None}
    reasons = {name: ruled_out(REGISTRY[name], method) for name in times}
    if not is_calibrated(platform):
        for name, cost in costs.items():
            if name != "xla" and costs["xla"].work < UNCALIBRATED_ADVANTAGE * cost.work:
                reasons[name] = (
                    reasons[name]
                    or f"not {UNCALIBRATED_ADVANTAGE:g} times less work than xla's, on a platform without measurements"
                )
    allowed = [name for name in times if not reasons[name]]
    # What holds or gathers much counts as that much slower than it is, so that it is chosen only if the others are
    # slower still.
    penalties = {name: advantage(REGISTRY[name]) for name in allowed}
    for name in allowed:
        if heavy := too_much_scratch(problem, costs[name]):
            reasons[name] = heavy
            penalties[name] *= HEAVY_ADVANTAGE
        if gathers := candidates[name].gathers:
            penalties[name] = HEAVY_ADVANTAGE * max(devices for _, devices in spread)
            reasons[name] = f"{gathers}, without being {penalties[name]:g} times faster"
    saved = {name: FFT_SAVES * REGISTRY[name].uses_fft for name in allowed}
    chosen = min(allowed, key=lambda name: times[name] * penalties[name] + saved[name])
    close = {name: f"less than {penalty / penalties[chosen]:.2g} times faster" for name, penalty in penalties.items()}
    close |= {name: f"{close[name]}, or saves less than {duration(FFT_SAVES)}" for name in allowed if saved[name]}
    slower = {name: f"{time / times[chosen]:.1f} times slower" for name, time in times.items()}
    return chosen, {
        name: reasons[name] or (slower[name] if times[name] > times[chosen] else close[name]) for name in times
    }


def advantage(algorithm: Algorithm) -> float:
    """Return how many times faster than XLA's convolution an algorithm must be by the model."""
    if algorithm.name == "xla":
        return 1.0
    is_plain = algorithm.inner is None and not algorithm.uses_fft
    return XLA_ADVANTAGE if is_plain else XLA_ADVANTAGE * PLAIN_ADVANTAGE


def too_much_scratch(problem: Problem, cost: Cost) -> str:
    """Return why an algorithm must be much faster than the others to be chosen, if it holds that much; else empty."""
    limit = _scratch_limit(problem)
    if cost.scratch <= limit:
        return ""
    return (
        f"would hold {cost.scratch / 2**20:.0f} MiB, above {limit / 2**20:.0f}, without being "
        f"{HEAVY_ADVANTAGE:g} times faster"
    )


def _scratch_limit(problem: Problem) -> int:
    """Return how many bytes of temporaries an algorithm may hold without being much faster than the others."""
    itemsize = problem.spec.out_dtype.itemsize
    return (
        SCRATCH_FACTOR * itemsize * sum(map(math.prod, (problem.x_shape, problem.w_shape, problem.y_shape)))
        + SCRATCH_FREE
    )


def _candidate(algorithm: Algorithm, problem: Problem, platform: str, spread: Spread) -> Candidate:
    """Return what an algorithm would take, with the reason if it cannot run the problem."""
    reason = algorithm.supports(problem)
    if reason is not None:
        return Candidate(algorithm.name, None, None, reason)
    cost = algorithm.cost(problem)
    time = seconds(cost, algorithm.name, platform, problem.spec.out_dtype)
    gathers = _gathers(algorithm, problem, spread)
    if algorithm.inner is None:
        return Candidate(algorithm.name, cost, time, "", gathers=gathers)
    simple, _ = simplify(with_choices_of(problem, algorithm.inner(problem)))
    decision = decide(simple, platform, spread_inside(algorithm, spread))
    inside = next(c for c in decision.candidates if c.name == decision.chosen)
    if inside.cost is None or inside.seconds is None:
        raise RuntimeError(f"the planner chose {inside.name!r}, which cannot run the problem: {inside.reason}")
    total = dataclasses.replace(
        inside.cost,
        bytes_moved=inside.cost.bytes_moved + cost.bytes_moved,
        scratch=inside.cost.scratch + cost.scratch,
    )
    return Candidate(algorithm.name, total, time + inside.seconds, "", inside.name, gathers=gathers or inside.gathers)


def _gathers(algorithm: Algorithm, problem: Problem, spread: Spread) -> str:
    """Return what an algorithm would have to move between devices; an axis is sharded evenly, if at all."""
    axes = algorithm.gathers(problem) if spread else ()
    moved = [axis for axis, devices in spread if axis in axes and math.gcd(getattr(problem, axis), devices) > 1]
    return f"would gather what may be sharded over {', '.join(moved)}" if moved else ""


def ruled_out(algorithm: Algorithm, method: str) -> str:
    """Return why a method does not admit an algorithm; empty if it does."""
    if method == "auto":
        return ""
    promise = f"method={method!r} rules out"
    fft, local = (False, True) if method == "direct" else (REGISTRY[method].uses_fft, REGISTRY[method].local)
    if algorithm.uses_fft and not fft:
        return f"{promise} FFTs"
    if local and not algorithm.local:
        return f"{promise} algorithms that spread NaN and infinities"
    return ""
