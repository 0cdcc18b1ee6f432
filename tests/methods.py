"""Which methods a case is run with: every registered algorithm that says it can, a new one without being asked."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv
from jaxconv._plan import CHOICES
from jaxconv._simplify import simplify
from jaxconv._spec import ConvSpec, Problem

from .cases import INTEGERS, Case, dtype_of, operands
from .tolerances import check


def problem(case: Case, dtype: str, convention: str = "correlation", method: str = "auto") -> Problem:
    """The planner's view of a case."""
    spec = ConvSpec(**case.options, convention=convention, method=method, precision=None, out_dtype=dtype_of(dtype))
    return Problem.of(case.x_shape, case.w_shape, dtype_of(dtype), spec)


def can(name: str, case: Case, dtype: str) -> bool:
    """Whether an algorithm says that it computes a case; results without arithmetic need no algorithm."""
    simple = problem(case, dtype)
    if not simple.empty:
        simple, _ = simplify(simple)
    return simple.empty or REGISTRY[name].supports(simple) is None


def parameters(
    cases: Sequence[Case], dtypes: Sequence[str], names: Sequence[str] = tuple(REGISTRY), limit: int | None = None
) -> list:
    """Parameters (case, dtype, method) for every combination that is supported.

    With a limit, the first so many cases that each algorithm supports; then each must support one, so that nobody
    adds an algorithm that the suite passes over. (Integers are for those that are no FFT.)
    """
    result = []
    for dtype, name in itertools.product(dtypes, names):
        able = [case for case in cases if name in CHOICES or can(name, case, dtype)]
        if limit is not None and not able and not (dtype in INTEGERS and REGISTRY[name].uses_fft):
            raise LookupError(f"no case for {name} in {dtype} among {', '.join(map(str, cases))}: add one")
        result += [pytest.param(case, dtype, name, id=f"{case}-{dtype}-{name}") for case in able[:limit]]
    return result


def may_use_fft(method: str) -> bool:
    """Whether results are held to the FFT's norm-wise bound rather than the elementwise one."""
    return method == "auto" or (method in REGISTRY and REGISTRY[method].uses_fft)


def promoted(a: np.ndarray, b: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Both operands in ``dtype``."""
    return a.astype(dtype_of(dtype)), b.astype(dtype_of(dtype))


def check_inside_shard_map(case: Case, method: str, devices: Sequence[jax.Device]) -> None:
    """Compare with the definition what two devices compute, each of an input of its own under the same kernel."""
    x, w = operands(case, "float64")
    fn = functools.partial(conv, **case.options, method=method)
    mesh, one = Mesh(np.array(devices), ("i",)), PartitionSpec("i")
    mapped = jax.jit(
        jax.shard_map(lambda x, w: fn(x[0], w)[None], mesh=mesh, in_specs=(one, PartitionSpec()), out_specs=one)
    )
    for item, y in zip((x, 2 * x), mapped(np.stack([x, 2 * x]), w), strict=True):
        check("value", y, item, w, case, "correlation", "float64", fft=False)
