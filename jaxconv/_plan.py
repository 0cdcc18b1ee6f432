"""The planner: from a problem to the cheapest algorithm, with reasons.

Plain Python on shapes; deterministic; microseconds a problem. It runs when a convolution is lowered, never in a call
that is compiled already.
"""

import dataclasses
import functools

from jaxconv._algorithms import REGISTRY, Algorithm
from jaxconv._cost import Cost, seconds
from jaxconv._spec import Method, Problem, simplify

# Methods that name a choice rather than an algorithm.
CHOICES = ("auto", "direct")
# On a platform that nobody has calibrated an algorithm replaces XLA's convolution only if it does this much less.
UNCALIBRATED_ADVANTAGE = 4.0


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
    """

    name: str
    cost: Cost | None
    seconds: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Decision:
    """The outcome for one problem: the chosen algorithm and every candidate, in the order of the registry."""

    problem: Problem
    platform: str
    chosen: str
    candidates: tuple[Candidate, ...]


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
    raise ValueError(
        f"unknown method {method!r}: choose one of {', '.join(map(repr, names))}, or a triple of those for the forward "
        "computation, the input gradient and the kernel gradient"
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


@functools.lru_cache(maxsize=8192)
def choose(problem: Problem, platform: str) -> Algorithm:
    """Return the algorithm for a simplified problem.

    A method that names an algorithm is taken at its word where that algorithm can run the problem. Where it cannot, as
    may happen in a gradient, which has a shape of its own, the planner chooses: among all algorithms if the one that
    was asked for is an FFT, otherwise among the direct ones.
    """
    return REGISTRY[decide(problem, platform).chosen]


def decide(problem: Problem, platform: str) -> Decision:
    """Weigh every algorithm for a simplified problem."""
    method = problem.spec.forward_method
    forced = None
    if method not in CHOICES:
        if REGISTRY[method].supports(problem) is None:
            forced = method
        method = "auto" if REGISTRY[method].uses_fft else "direct"
    costs: dict[str, Cost] = {}
    times: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, algorithm in REGISTRY.items():
        reason = algorithm.supports(problem)
        if reason is not None:
            reasons[name] = reason
            continue
        costs[name] = algorithm.cost(problem)
        times[name] = seconds(costs[name], name, platform, problem.spec.out_dtype)
        if algorithm.uses_fft and method == "direct" and forced is None:
            reasons[name] = "method='direct' rules out FFTs"
    allowed = {name: time for name, time in times.items() if name not in reasons}
    chosen = forced or min(allowed, key=allowed.__getitem__)
    candidates = []
    for name in REGISTRY:
        reason = reasons.get(name, "")
        if not reason and name != chosen:
            reason = f"method={forced!r} was asked for" if forced else f"{times[name] / times[chosen]:.1f} times slower"
        candidates.append(Candidate(name, costs.get(name), times.get(name), reason))
    return Decision(problem, platform, chosen, tuple(candidates))
