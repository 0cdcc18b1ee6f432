"""The registry of algorithms. Each stands in a file of its own with the same four functions."""

import dataclasses
from collections.abc import Callable

import jax

from jaxconv._algorithms import fft, shift, xla
from jaxconv._cost import Cost
from jaxconv._spec import Problem


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution.

    The planner and the lowering hand over *simplified* problems only (see `jaxconv._spec.simplify`): static, non-empty,
    with no negative padding.

    Attributes
    ----------
    name
        What users pass as ``method=``.
    summary
        One line for reports and error messages.
    uses_fft
        Whether it computes through a Fourier transform, which spreads rounding errors, NaN and infinities over the
        whole result, and which ``method="direct"`` rules out.
    supports
        Returns ``None`` if it can run the problem, otherwise the reason why not.
    cost
        Returns what running it takes.
    run
        Computes the result from the canonical operands.
    """

    name: str
    summary: str
    uses_fft: bool
    supports: Callable[[Problem], str | None]
    cost: Callable[[Problem], Cost]
    run: Callable[[Problem, jax.Array, jax.Array], jax.Array]


REGISTRY: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> None:
    """Add an algorithm to the registry.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if algorithm.name in REGISTRY:
        raise ValueError(f"an algorithm named {algorithm.name!r} is registered already")
    REGISTRY[algorithm.name] = algorithm


register(Algorithm("xla", "XLA's own convolution", False, xla.supports, xla.cost, xla.run))
register(Algorithm("shift", "sum of shifted slices", False, shift.supports, shift.cost, shift.run))
register(Algorithm("fft", "product of whole Fourier transforms", True, fft.supports, fft.cost, fft.run))
