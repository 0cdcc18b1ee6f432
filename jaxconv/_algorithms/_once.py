"""Keep XLA from evaluating a fused sum more than once."""

from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata

# Of a sum's number of terms, the function that computes it, and the operands.
Call = Callable[..., jax.Array]

# So few terms are cheaper to evaluate in each consumer than to write to memory and read again.
MAX_REPEATED_TERMS = 2


def caller(platform: str) -> Call:
    """Return how to call a function that writes out a sum, so that it is computed once, however many consumers it has.

    XLA on CPU would fuse a sum into every operation that reads it, a rectifier, its derivative and the like, and
    evaluate it again in each (a barrier does not help: it is dropped before fusion). It does not fuse across a call,
    and leaves one that is marked so where it is. On other platforms XLA decides.
    """
    return _call if platform == "cpu" else _inlined


def _call(terms: int, function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    if terms <= MAX_REPEATED_TERMS:
        return function(*operands)
    with set_xla_metadata(inlineable="false"):
        return jax.jit(function)(*operands)


def _inlined(terms: int, function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    del terms
    return function(*operands)
