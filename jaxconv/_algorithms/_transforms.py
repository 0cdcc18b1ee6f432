"""How Fourier transforms are handed to XLA."""

from collections.abc import Callable, Sequence

import jax
from jax import numpy as jnp


def flattened(transform: Callable[..., jax.Array], array: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Apply a transform of `jax.numpy.fft`, as ``rfftn``, to a few axes of array[g, n, ...], the others taken as one.

    XLA on CPU refuses an FFT whose operand it has laid out otherwise than row by row. It does so with a sharded batch,
    which it transposes and gathers by naming another layout; an array whose first axis holds all that is not
    transformed leaves it nothing to exchange. The batch comes first in that axis, so that it stays sharded as it is.
    """
    last = range(-len(axes), 0)
    array = jnp.moveaxis(array, axes, last).swapaxes(0, 1)
    others = array.shape[: -len(axes)]
    rows = transform(array.reshape(-1, *array.shape[-len(axes) :]), axes=last)
    return jnp.moveaxis(rows.reshape(*others, *rows.shape[1:]).swapaxes(0, 1), last, axes)
