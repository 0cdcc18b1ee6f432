"""How sums that are written out are computed, so that XLA on CPU runs them once, and as fast as it can."""

import dataclasses
from collections.abc import Callable

import jax
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
    """

    platform: str

    def __call__(self, terms: int, function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
        """Compute the function of the operands once, however many consumers it has."""
        if self.platform != "cpu" or terms <= MAX_REPEATED_TERMS:
            return function(*operands)
        with set_xla_metadata(inlineable="false"):
            return jax.jit(function)(*operands)

    def cuts(self, length: int, terms: int) -> tuple[int, ...]:
        """Return where to cut an axis along which sums of so many terms are computed, if it is the only one."""
        if self.platform != "cpu" or length * terms < DIVIDED:
            return (0, length)
        return tuple(sorted({0, length - length % EVEN, length}))
