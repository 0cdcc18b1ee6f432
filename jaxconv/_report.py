"""`jaxconv.plan`: what the planner would do, and why, in print."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv import signal
from jaxconv._dtypes import is_inexact
from jaxconv._plan import Candidate, Decision, Spread, assumed_spread, decide
from jaxconv._primitive import conv_p
from jaxconv._simplify import simplify
from jaxconv._spec import Method, Problem, is_static
from jaxconv._text import algorithm_name, describe, duration, table

_ROLES = ("forward", "input gradient", "kernel gradient")
_HEADER = ("algorithm", "multiply-adds", "FFT flops", "bytes", "scratch", "time")


@dataclasses.dataclass(frozen=True)
class ConvolutionPlan:
    """What the planner would do for one convolution.

    Attributes
    ----------
    problem
        The convolution as it was bound: shapes, dtype and specification.
    forward, input_gradient, kernel_gradient
        The chosen algorithm and all candidates. None where there is nothing to compute (an empty or all-zero
        result), and for the gradients of integers.
    """

    problem: Problem
    forward: Decision | None
    input_gradient: Decision | None
    kernel_gradient: Decision | None

    def __repr__(self) -> str:
        lines = describe(self.problem)
        for role, decision in zip(_ROLES, (self.forward, self.input_gradient, self.kernel_gradient), strict=True):
            if decision is not None:
                lines += [
                    "",
                    f"  {role} on {decision.platform}: {decision.chosen} ({decision.source})",
                    *_table(decision),
                ]
        return "\n".join(lines)


class Report(tuple[ConvolutionPlan, ...]):
    """The plans of all convolutions of a function, in the order of its program; prints as a report."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self:
            return "no convolution of jaxconv found"
        return "\n\n".join(map(repr, self))


def plan(
    fn: Callable[..., Any] | int | Sequence[int],
    *args: Any,
    mode: signal.Mode | None = None,
    dtype: Any = None,
    method: Method | None = None,
    platform: str | None = None,
    devices: int = 1,
) -> Report:
    """Tell which algorithm each convolution would run, what every candidate would cost, and why it lost.

    Nothing is computed: shapes are all that is looked at.

    Parameters
    ----------
    fn
        A function that calls jaxconv, transformed in any way (`jax.grad`, `jax.vmap`, `jax.jit`, ...); or the shape of
        a signal.
    *args
        The function's arguments (arrays or `jax.ShapeDtypeStruct`); or the shape of the kernel.
    mode, dtype, method
        For a pair of shapes, of which a `jaxconv.signal.convolve` is planned: ``"full"``, float32 and ``"auto"`` by
        default. A function brings its own.
    platform
        ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``; that of the default device if None.
    devices
        Over how many devices `jax.jit` may shard the operands by itself: algorithms for which it would have to gather
        them are avoided then. Inside `jax.shard_map` each device plans for itself.

    Returns
    -------
    Report
        A tuple with one `ConvolutionPlan` per convolution, which prints as tables.

    Raises
    ------
    TypeError
        If a pair of shapes is incomplete, or a function is given together with a mode, dtype or method.
    ValueError
        If the mode, the method or the platform is unknown, devices is less than 1, or a size is symbolic.

    Examples
    --------
    >>> import jaxconv
    >>> report = jaxconv.plan((100_000,), (5,), mode="same", platform="cpu")
    >>> report[0].forward.chosen
    'shift'
    """
    platform = _check_platform(platform)
    if devices < 1:
        raise ValueError(f"devices must be at least 1, got {devices}")
    if not callable(fn):
        if len(args) != 1:
            raise TypeError(
                "jaxconv.plan takes a function and its arguments, or two shapes: plan((1000,), (16,)); got a shape and "
                f"{len(args)} further arguments"
            )
        dtype = jnp.float32 if dtype is None else dtype
        args = tuple(jax.ShapeDtypeStruct(_shape(shape), dtype) for shape in (fn, *args))
        fn = functools.partial(signal.convolve, mode=mode or "full", method=method or "auto")
    elif given := [k for k, v in {"mode": mode, "dtype": dtype, "method": method}.items() if v is not None]:
        raise TypeError(
            f"{', '.join(given)} cannot be given with a function, which brings its own: bind them first, for example "
            "with functools.partial(jaxconv.signal.convolve, mode='same')"
        )
    for shape in (getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(args)):
        if not all(map(is_static, shape)):
            raise ValueError(
                f"jaxconv.plan needs known sizes, got shape {shape}: a program that is exported with symbolic sizes "
                "takes 'xla', whatever the sizes turn out to be"
            )
    spread = assumed_spread(devices)
    return Report(_plan_convolution(problem, platform, spread) for problem in convolutions(fn, *args))


def convolutions(fn: Callable[..., Any], *args: Any) -> list[Problem]:
    """Return the problems of all convolutions of a function, in the order of its program."""
    return list(_convolutions(jax.make_jaxpr(fn)(*args).jaxpr))


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)


def _check_platform(platform: str | None) -> str:
    known = ("cpu", "cuda", "rocm", "tpu")
    platform = jax.default_backend() if platform is None else platform
    platform = "cuda" if platform == "gpu" else platform
    if platform not in known:
        raise ValueError(f"unknown platform {platform!r}: choose one of {', '.join(map(repr, known))}")
    return platform


def _convolutions(jaxpr: Any) -> Iterator[Problem]:
    """Yield the problems of all convolutions in a jaxpr and in the jaxprs inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive is conv_p:
            x, w = (variable.aval for variable in equation.invars)
            yield Problem.of(x.shape, w.shape, x.dtype, equation.params["spec"])
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _convolutions(inner)


def _plan_convolution(problem: Problem, platform: str, spread: Spread) -> ConvolutionPlan:
    differentiable = is_inexact(problem.dtype)
    return ConvolutionPlan(
        problem,
        _decide(problem, platform, spread),
        _decide(problem.input_gradient(), platform, spread) if differentiable else None,
        _decide(problem.kernel_gradient(), platform, spread) if differentiable else None,
    )


def _decide(problem: Problem, platform: str, spread: Spread) -> Decision | None:
    if problem.empty:
        return None
    problem, _ = simplify(problem)
    return None if problem.empty else decide(problem, platform, spread)


def _table(decision: Decision) -> list[str]:
    """Return the lines of a table: the candidates that can run the problem, and then why the others cannot."""
    able = [candidate for candidate in decision.candidates if candidate.cost is not None]
    measured = any(candidate.measured is not None for candidate in able)
    chosen = next(algorithm_name(c.name, c.inner) for c in able if c.name == decision.chosen)
    header = (*_HEADER, "measured", "error") if measured else (*_HEADER, "error")
    rows = [_row(candidate, measured) for candidate in able]
    lines = table(header, rows, chosen, [candidate.reason for candidate in able])
    width = max(len(row[0]) for row in (header, *rows))
    unable = [candidate for candidate in decision.candidates if candidate.cost is None]
    return lines + [f"     {candidate.name.ljust(width)}  cannot: {candidate.reason}" for candidate in unable]


def _row(candidate: Candidate, measured: bool) -> tuple[str, ...]:
    cost = candidate.cost
    if cost is None or candidate.seconds is None:
        raise ValueError(f"{candidate.name!r} has no cost: {candidate.reason}")
    times = [duration(candidate.seconds)]
    if measured:
        times.append("-" if candidate.measured is None else duration(candidate.measured))
    return (
        algorithm_name(candidate.name, candidate.inner),
        f"{cost.multiply_adds:.1e}",
        f"{cost.transform_flops:.1e}" if cost.transform_flops else "0",
        f"{cost.bytes_moved:.1e}",
        f"{cost.scratch:.1e}",
        *times,
        f"{cost.error:.0e}" if cost.error else "exact",
    )
