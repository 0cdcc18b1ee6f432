"""The flip itself."""

import operator
from collections.abc import Iterable, Sequence

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
    TypeError
        If an axis is no integer.
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
    kernel = jnp.asarray(kernel)
    if axes is not None:
        try:
            axes = tuple(map(operator.index, axes if isinstance(axes, Iterable) else (axes,)))
        except TypeError:
            raise TypeError(f"axes must be an integer or a sequence of integers, got {axes!r}") from None
        if any(not -kernel.ndim <= axis < kernel.ndim for axis in axes):
            raise ValueError(f"axes must lie between {-kernel.ndim} and {kernel.ndim - 1}, got {axes}")
        if len({axis % kernel.ndim for axis in axes}) != len(axes):
            raise ValueError(f"axes must be unique, got {axes}")
    return jnp.flip(kernel, axes)
