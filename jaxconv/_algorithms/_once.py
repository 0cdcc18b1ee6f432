"""How sums that are written out are computed, so that XLA on CPU compiles them soon, and runs them once and fast."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

# So few terms are cheaper to evaluate in each consumer than to write to memory and read again.
MAX_REPEATED_TERMS = 2
# XLA on CPU divides a loop of about DIVIDED terms or more among the cores. If it runs along a single axis, it is
# vectorised only if that leaves no rest: of a multiple of EVEN samples it leaves none.
DIVIDED = 1 << 16
EVEN = 64


@dataclasses.dataclass(frozen=True)
class Call:
    """How to compute a sum that is written out on a platform; called with its number of terms, function and operands.

    XLA on CPU would fuse a sum into every operation that reads it, a rectifier, its derivative and the like, and
    evaluate it again in each (a barrier does not help: it is dropped before fusion). It does not fuse across a call,
    and leaves one that is marked so where it is. On other platforms XLA decides.

    It takes XLA on CPU 10 to 40 ms to compile a loop, but it compiles only once those that are equal, wherever they
    stand in a program. With a call between them, loops of the caller do not differ in what they read of the callee;
    and slices that begin at `hidden` positions do not differ in where they begin.
    """

    platform: str

    def __call__(self, terms: int, function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
        """Compute the function of the operands once, however many consumers it has."""
        return function(*operands) if terms <= MAX_REPEATED_TERMS else self.apart(function, *operands)

    def apart(self, function: Callable[..., jax.Array], *operands: Any) -> jax.Array:
        """Compute a function that is more than a short sum, such as a matrix product, apart from what reads it."""
        if self.platform != "cpu":
            return function(*operands)

        def alone(*operands: Any) -> jax.Array:
            # What the function itself calls may be inlined.
            with set_xla_metadata(inlineable="true"):
                return function(*operands)

        with set_xla_metadata(inlineable="false"):
            return jax.jit(alone)(*operands)

    def divides(self, length: int, terms: int) -> bool:
        """Whether sums of so many terms are divided among cores along an axis of that length."""
        return self.platform == "cpu" and length * terms >= DIVIDED

    def cuts(self, length: int, terms: int) -> tuple[int, ...]:
        """Return where to cut an axis along which sums of so many terms are computed, if it is the only one."""
        if not self.divides(length, terms):
            return (0, length)
        return tuple(sorted({0, length - length % EVEN, length}))

    def hidden(self, positions: Sequence[Sequence[int]]) -> tuple[Any, Callable[[Any], Any]]:
        """Return positions along several axes as operands for a call, and the function that reads them in there.

        XLA does not see their values. Nor does it see that some are equal, which would tell apart the loops that use
        them: along each axis they are counted on from those of the axis before.
        """
        if self.platform != "cpu":
            return positions, lambda operands: operands
        first = [0, *itertools.accumulate(max(axis) + 1 for axis in positions)]
        counted = [[np.uint32(start + p) for p in axis] for axis, start in zip(positions, first, strict=False)]

        def read(operands: Any) -> Any:
            starts = zip(operands, map(np.uint32, first), strict=False)
            return [[p - start if start else p for p in axis] for axis, start in starts]

        return lax.optimization_barrier(counted), read
