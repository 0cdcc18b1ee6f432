"""Keep XLA from evaluating a fused sum more than once."""

from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

# So few terms are cheaper to evaluate in each consumer than to write to memory and read again.
MAX_REPEATED_TERMS = 2


def once(compute: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    """Compute a result once, however many consumers it has.

    XLA on CPU would fuse the sum into every operation that reads it, a rectifier, its derivative and the like, and
    evaluate it again in each (a barrier does not help: it is dropped before fusion). It does not fuse across a
    conditional; this one's condition always holds, which XLA cannot know.
    """
    real = jnp.real(_first(operands[-1]))
    bits = lax.bitcast_convert_type(real, f"uint{8 * real.dtype.itemsize}")
    shape = jax.eval_shape(compute, *operands).shape

    def never(*operands: jax.Array) -> jax.Array:
        # Made of all operands so that, inside `jax.shard_map`, it varies over the mesh axes that the sum varies over.
        return jnp.broadcast_to(sum(map(_first, operands)), shape)

    return lax.cond((bits | 1) != 0, compute, never, *operands)


def _first(array: jax.Array) -> jax.Array:
    return lax.slice(array, (0,) * array.ndim, (1,) * array.ndim).reshape(())
