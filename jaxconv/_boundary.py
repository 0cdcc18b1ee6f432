"""What lies beyond the ends of an array: the boundaries of `scipy.ndimage`, by their names.

An extended axis reads ``x[source(i)]`` at every position i, those below 0 and beyond n - 1 included:

=========== ========================= ================= ============================= =================
name        extension of ``a b c d``  `numpy.pad` mode  source of position i          synonym
=========== ========================= ================= ============================= =================
constant    ``v v|a b c d|v v``       constant          none: the value *cval*        grid-constant
nearest     ``a a|a b c d|d d``       edge              i clipped to 0 .. n - 1
reflect     ``b a|a b c d|d c``       symmetric         j = i mod 2n, mirrored        grid-mirror
                                                        beyond n - 1/2
mirror      ``c b|a b c d|c b``       reflect           j = i mod (2n - 2), mirrored
                                                        beyond n - 1
wrap        ``c d|a b c d|a b``       wrap              i mod n                       grid-wrap
=========== ========================= ================= ============================= =================

The formulas hold at any distance, so that an extension may be longer than the axis, which is then read more than once.
An axis of one sample, which has nothing to mirror, repeats it. (For interpolation, but not for filters, SciPy's "wrap"
is another, with period n - 1.)
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv._spec import is_static
from jaxconv._text import perhaps

Boundary: TypeAlias = Literal[
    "constant", "nearest", "reflect", "mirror", "wrap", "grid-constant", "grid-mirror", "grid-wrap"
]

BOUNDARIES: tuple[Boundary, ...] = ("constant", "nearest", "reflect", "mirror", "wrap")
SYNONYMS: dict[str, Boundary] = {"grid-constant": "constant", "grid-mirror": "reflect", "grid-wrap": "wrap"}
# Other libraries' names, for the error message only: some of them name something else here.
_ELSEWHERE = {
    "symmetric": "reflect",
    "symm": "reflect",
    "edge": "nearest",
    "replicate": "nearest",
    "circular": "wrap",
    "periodic": "wrap",
    "zeros": "constant",
    "fill": "constant",
}
# An axis is put together of this many slices, or else gathered: a slice has a fast gradient, a gather has not.
_MAX_SLICES = 8


def check_boundary(boundary: object, ndim: int) -> tuple[Boundary, ...]:
    """Return the boundary of each axis, without synonyms.

    Parameters
    ----------
    boundary
        A name for all axes, or a sequence of one name for each.
    ndim
        Number of axes.

    Raises
    ------
    TypeError
        If it is neither a name nor a sequence of names.
    ValueError
        If a name is unknown, or there are not as many as axes.
    """
    if isinstance(boundary, str):
        return (_canonical(boundary),) * ndim
    if not isinstance(boundary, Sequence) or not all(isinstance(name, str) for name in boundary):
        raise TypeError(f"boundary must be a name, or a sequence of one name for each axis, got {boundary!r}")
    if len(boundary) != ndim:
        raise ValueError(
            f"boundary must be one name, or one for each of {ndim} axes: got {len(boundary)} ({tuple(boundary)})"
        )
    return tuple(_canonical(name) for name in boundary)


def _canonical(name: str) -> Boundary:
    for boundary in BOUNDARIES:
        if name == boundary:
            return boundary
    if name in SYNONYMS:
        return SYNONYMS[name]
    known = (*BOUNDARIES, *SYNONYMS)
    # Flax's padding "REFLECT" does not repeat the edge.
    remedy = "mirror" if name == "REFLECT" else _ELSEWHERE.get(name)
    hint = f", perhaps {remedy!r}" if remedy else perhaps(name, known)
    raise ValueError(f"unknown boundary {name!r}: choose one of {', '.join(map(repr, known))}{hint}")


def extend(
    x: jax.Array,
    widths: Sequence[tuple[int, int]],
    boundary: Boundary | Sequence[Boundary] = "constant",
    cval: ArrayLike = 0,
) -> jax.Array:
    """Extend an array beyond its ends.

    Parameters
    ----------
    x
        Array of any shape and dtype.
    widths
        For each axis how many samples to add, ``(before, after)``; they may exceed the axis.
    boundary
        One of the names in the table above, or one for each axis.
    cval
        Value beyond the ends of axes whose boundary is "constant"; converted to the dtype of ``x``.

    Returns
    -------
    jax.Array
        The extended array, of the dtype of ``x``. Its gradient adds up what was read from the same sample.

    Raises
    ------
    TypeError
        If the boundary is no name.
    ValueError
        If a name is unknown, a width is negative, or an axis to be extended is empty (unless with a constant).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv._boundary import extend
    >>> extend(jnp.arange(3), [(2, 4)], "reflect")
    Array([1, 0, 0, 1, 2, 2, 1, 0, 0], dtype=int32)
    >>> extend(jnp.arange(4).reshape(2, 2), [(0, 1), (1, 1)], ["wrap", "constant"], cval=9)
    Array([[9, 0, 1, 9],
           [9, 2, 3, 9],
           [9, 0, 1, 9]], dtype=int32)
    """
    boundaries = check_boundary(boundary, x.ndim)
    if len(widths) != x.ndim:
        raise ValueError(f"widths must hold one pair (before, after) per axis: got {len(widths)} for shape {x.shape}")
    if any(width < 0 for pair in widths for width in pair):
        raise ValueError(f"widths must not be negative, got {tuple(widths)}")
    constant = [(0, 0)] * x.ndim
    for axis, (name, pair) in enumerate(zip(boundaries, widths, strict=True)):
        if tuple(pair) == (0, 0):
            continue
        if name == "constant":
            constant[axis] = (pair[0], pair[1])
        else:
            x = _extend_axis(x, axis, pair[0], pair[1], name)
    if any(pair != (0, 0) for pair in constant):
        x = _extend_constant(x, constant, cval)
    return x


def _extend_constant(x: jax.Array, widths: Sequence[tuple[int, int]], cval: ArrayLike) -> jax.Array:
    amounts = [(before, after, 0) for before, after in widths]
    extended = lax.pad(x, jnp.zeros((), x.dtype), amounts)
    if isinstance(cval, (bool, int, float, complex)) and cval == 0:
        return extended
    # Not as the padding value of `lax.pad`, whose gradient raises in JAX unless that of x is taken too.
    inside = lax.pad(jnp.ones(x.shape, bool), jnp.zeros((), bool), amounts)
    return jnp.where(inside, extended, jnp.asarray(cval).astype(x.dtype))


def _extend_axis(x: jax.Array, axis: int, before: int, after: int, boundary: str) -> jax.Array:
    size = x.shape[axis]
    if not is_static(size):
        raise ValueError(f"axis {axis} has a symbolic length, {size}: only the boundary 'constant' can extend it")
    if size == 0:
        raise ValueError(
            f"axis {axis} of shape {x.shape} is empty and has nothing to extend with boundary {boundary!r}: only "
            "'constant' can extend it"
        )
    source = _source(np.arange(-before, size + after), size, boundary)
    slices = []
    for first, last in _runs(source):
        if len(slices) == _MAX_SLICES:
            return jnp.take(x, source, axis)
        low, high = sorted((source[first], source[last]))
        part = lax.slice_in_dim(x, low, high + 1, axis=axis)
        if low < high:
            part = part if source[first] == low else lax.rev(part, (axis,))
        elif first < last:
            part = jnp.repeat(part, last - first + 1, axis)
        slices.append(part)
    return lax.concatenate(slices, axis)


def _source(position: np.ndarray, size: int, boundary: str) -> np.ndarray:
    """Return which sample stands at each position (see the table above)."""
    if boundary == "nearest" or size == 1:
        return np.clip(position, 0, size - 1)
    if boundary == "wrap":
        return position % size
    period, centre = (2 * size, 2 * size - 1) if boundary == "reflect" else (2 * size - 2, 2 * size - 2)
    position = position % period
    return np.minimum(position, centre - position)


def _runs(source: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the first and last index of stretches in which the source rises by one, falls by one or stays."""
    steps = np.diff(source)
    first = 0
    while first < len(source):
        last = first
        if first < len(steps) and abs(steps[first]) <= 1:
            changes = np.flatnonzero(steps[first:] != steps[first])
            last = first + int(changes[0]) if len(changes) else len(source) - 1
        yield first, last
        first = last + 1
