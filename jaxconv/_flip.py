"""The flip itself."""

from collections.abc import Sequence

import jax
from jax import numpy as jnp
from jax.typing import ArrayLike


def flip(kernel: ArrayLike, axes: int | Sequence[int] | None = None) -> jax.Array:
    """Reverse a kernel: ``flip(k)[i, j] == k[-1 - i, -1 - j]``.

    Convolution with a kernel is correlation with its flip. In two dimensions that is a rotation by 180 degrees.

    Parameters
    ----------
    kernel
        Array of any shape and dtype.
    axes
        Axes to reverse, all of them by default. For a Flax kernel, ``(height, width, in, out)``, those are ``(0, 1)``.

    Returns
    -------
    jax.Array
        The reversed kernel, of the same shape and dtype.

    Raises
    ------
    ValueError
        If an axis is out of range or repeated.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv import flip
    >>> flip(jnp.array([[1, 2], [3, 4]]))
    Array([[4, 3],
           [2, 1]], dtype=int32)
    """
    return jnp.flip(kernel, axes if axes is None or isinstance(axes, int) else tuple(axes))
