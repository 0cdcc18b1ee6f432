"""The functions of `jaxconv.signal` on arrays: SciPy's modes, boundaries and broadcasting as sections of the primitive.

Each is compiled once for each combination of shapes, dtypes and options, so that a call costs little more than that of
any jitted function. The arguments have passed `jaxconv.signal`, which documents them.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv import _ops
from jaxconv._dtypes import is_complex, is_inexact
from jaxconv._plan import check_method
from jaxconv._spec import Convention, Method, is_static

Mode = Literal["full", "same", "valid"]
Boundary = Literal["fill", "pad", "wrap", "circular", "symm", "symmetric"]
# For each axis: where to start in the full convolution, and how many outputs to return.
Sections = Sequence[tuple[int, int]]

_MODES = ("full", "same", "valid")
# SciPy's names for the ways to extend an image, and those of `jax.numpy.pad`.
_BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "wrap",
    "circular": "wrap",
    "symm": "symmetric",
    "symmetric": "symmetric",
}


@functools.partial(jax.jit, static_argnames=("mode", "method", "precision", "conjugate"))
def convolve(
    in1: jax.Array, in2: jax.Array, *, mode: Mode, method: Method, precision: Any, conjugate: bool
) -> jax.Array:
    """Convolve arrays of any rank, or correlate them."""
    check_mode(mode)
    _check_numeric(in1, in2)
    _check_ranks(in1, in2)
    _check_valid(mode, in1.shape, in2.shape)
    if _is_empty(mode, in1, in2):
        return jnp.zeros(in1.shape, jnp.result_type(in1, in2))
    sections = [section(mode, n, m) for n, m in zip(in1.shape, in2.shape, strict=True)]
    return convolve_arrays(in1, in2, sections, conjugate, method, precision)


@functools.partial(jax.jit, static_argnames=("mode", "boundary", "method", "precision", "conjugate"))
def convolve2d(
    in1: jax.Array,
    in2: jax.Array,
    fillvalue: jax.Array | None,
    *,
    mode: Mode,
    boundary: Boundary,
    method: Method,
    precision: Any,
    conjugate: bool,
) -> jax.Array:
    """Convolve images, or correlate them, under a boundary condition; no ``fillvalue`` stands for zero."""
    check_mode(mode)
    if boundary not in _BOUNDARIES:
        raise ValueError(f"unknown boundary {boundary!r}: choose one of {', '.join(map(repr, _BOUNDARIES))}")
    _check_numeric(in1, in2)
    if in1.ndim != 2 or in2.ndim != 2:
        raise ValueError(f"in1 and in2 must be two-dimensional, got shapes {in1.shape} and {in2.shape}")
    dtype = jnp.result_type(in1, in2)
    if fillvalue is not None:
        fillvalue = _check_fillvalue(fillvalue, dtype)
    _check_valid(mode, in1.shape, in2.shape)
    if _is_empty(mode, in1, in2):
        return jnp.zeros(in1.shape, dtype)
    sections = [section(mode, n, m) for n, m in zip(in1.shape, in2.shape, strict=True)]
    if conjugate and mode == "same":
        sections = [(m // 2, n) for n, m in zip(in1.shape, in2.shape, strict=True)]
    padding = _BOUNDARIES[boundary]
    fill = fillvalue if padding == "constant" else None
    if mode != "valid" and not (padding == "constant" and fill is None):
        # Extend the image as far as the outputs reach, and read the outputs off the valid part.
        shapes = zip(sections, in1.shape, in2.shape, strict=True)
        reach = [(m - 1 - start, start + length - n) for (start, length), n, m in shapes]
        if fill is not None:
            # Not `constant_values=fillvalue`: its gradient raises in JAX unless that of in1 is taken too.
            inside = jnp.pad(jnp.ones(in1.shape, bool), reach)
            in1 = jnp.where(inside, jnp.pad(in1.astype(dtype), reach), fill)
        else:
            in1 = jnp.pad(in1.astype(dtype), reach, padding)
        sections = [section("valid", n, m) for n, m in zip(in1.shape, in2.shape, strict=True)]
    return convolve_arrays(in1, in2, sections, conjugate, method, precision)


@functools.partial(jax.jit, static_argnames=("mode", "axes", "precision"))
def fftconvolve(
    in1: jax.Array, in2: jax.Array, *, mode: Mode, axes: tuple[int, ...] | None, precision: Any
) -> jax.Array:
    """Convolve over some axes by FFT and broadcast the others."""
    check_mode(mode)
    _check_numeric(in1, in2)
    _check_ranks(in1, in2)
    dtype = jnp.result_type(in1, in2)
    dtype = dtype if is_inexact(dtype) else jnp.result_type(float)
    in1, in2 = in1.astype(dtype), in2.astype(dtype)
    if in1.size == 0 or in2.size == 0:
        return jnp.zeros((0,), dtype)
    convolved = [a for a in _normalized_axes(axes, in1.ndim) if in1.shape[a] != 1 and in2.shape[a] != 1]
    broadcast = [a for a in range(in1.ndim) if a not in convolved]
    for a in broadcast:
        if in1.shape[a] != in2.shape[a] and 1 not in (in1.shape[a], in2.shape[a]):
            raise ValueError(
                f"axis {a} is not convolved over, so that its lengths must be equal or 1, got shapes {in1.shape} and "
                f"{in2.shape}"
            )
    shape1, shape2 = (tuple(array.shape[a] for a in convolved) for array in (in1, in2))
    _check_valid(mode, shape1, shape2)
    if mode == "same":
        # The result has the shape of in1, so that the middle entry of what was broadcast is all that is returned.
        for a in broadcast:
            if in1.shape[a] == 1:
                in2 = lax.slice_in_dim(in2, (in2.shape[a] - 1) // 2, (in2.shape[a] - 1) // 2 + 1, axis=a)
    # Axes that both arrays have become groups, those of in1 alone the batch, those of in2 alone output channels.
    shared = [a for a in broadcast if in1.shape[a] == in2.shape[a]]
    only1 = [a for a in broadcast if in1.shape[a] != 1 and in2.shape[a] == 1]
    only2 = [a for a in broadcast if in1.shape[a] == 1 and in2.shape[a] != 1]
    groups, batch, out = (math.prod(max(in1.shape[a], in2.shape[a]) for a in kind) for kind in (shared, only1, only2))
    x = in1.transpose(*shared, *only1, *only2, *convolved).reshape(groups, batch, 1, *shape1)
    w = in2.transpose(*shared, *only2, *only1, *convolved).reshape(groups, out, 1, *shape2)
    sections = [section(mode, n, m) for n, m in zip(shape1, shape2, strict=True)]
    y = _convolve_sections(x, w, sections, "convolution", "fft", precision)
    order = (*shared, *only1, *only2, *convolved)
    lengths = [max(in1.shape[a], in2.shape[a]) for a in order[: len(broadcast)]]
    y = y.reshape(*lengths, *y.shape[3:])
    return y.transpose([order.index(a) for a in range(y.ndim)])


def check_mode(mode: Any) -> None:
    """Check that a mode is one of SciPy's.

    Raises
    ------
    ValueError
        If it is not.
    """
    if mode not in _MODES:
        raise ValueError(f"unknown mode {mode!r}: choose one of {', '.join(map(repr, _MODES))}")


def section(mode: Mode, size: int, taps: int) -> tuple[int, int]:
    """Return where a mode starts in the full convolution of one axis, and how many outputs it has."""
    if mode == "full":
        return 0, size + taps - 1
    if mode == "same":
        return (taps - 1) // 2, size
    return min(size, taps) - 1, abs(size - taps) + 1


def _check_numeric(in1: jax.Array, in2: jax.Array) -> None:
    _ops.check_numeric("in1", in1.dtype)
    _ops.check_numeric("in2", in2.dtype)


def _check_ranks(in1: jax.Array, in2: jax.Array) -> None:
    if in1.ndim != in2.ndim:
        raise ValueError(
            f"in1 and in2 must have the same number of dimensions, got {in1.ndim} and {in2.ndim} (shapes {in1.shape} "
            f"and {in2.shape}): add axes of length 1 where they are missing"
        )


def _check_valid(mode: Mode, shape1: Sequence[int], shape2: Sequence[int]) -> None:
    if mode != "valid":
        return
    pairs = list(zip(shape1, shape2, strict=True))
    if not (all(a >= b for a, b in pairs) or all(a <= b for a, b in pairs)):
        raise ValueError(
            "for mode 'valid' one input must be at least as large as the other on every axis, got shapes "
            f"{tuple(shape1)} and {tuple(shape2)}"
        )


def _check_fillvalue(fillvalue: jax.Array, dtype: Any) -> jax.Array:
    if fillvalue.size != 1:
        raise ValueError(f"fillvalue must be a scalar, got shape {fillvalue.shape}")
    if is_complex(fillvalue.dtype) and not is_complex(dtype):
        raise ValueError(f"fillvalue is complex, but the result is {dtype}: convert in1 or in2 to a complex dtype")
    return fillvalue.reshape(()).astype(dtype)


def _is_empty(mode: Mode, in1: jax.Array, in2: jax.Array) -> bool:
    """Whether the result is empty; an empty input with any other result raises."""
    if in1.size != 0 and in2.size != 0:
        return False
    if mode == "same" and in2.size != 0:
        return True
    raise ValueError(f"the inputs must not be empty, got shapes {in1.shape} and {in2.shape}")


def _normalized_axes(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axes is None or ndim == 0:
        return tuple(range(ndim))
    if not axes:
        raise ValueError("axes must not be empty: give None to convolve over all axes")
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axes must lie between {-ndim} and {ndim - 1} for arrays of rank {ndim}, got {axes}")
    axes = tuple(a % ndim for a in axes)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axes must be unique, got {axes}")
    return axes


def convolve_arrays(
    in1: jax.Array, in2: jax.Array, sections: Sections, conjugate: bool, method: Method, precision: Any
) -> jax.Array:
    """Convolve arrays of the same rank (or correlate the first with the second), the smaller one being the kernel.

    The sections are those of the full result that are returned.
    """
    method = check_method(method)
    in2 = jnp.conj(in2) if conjugate else in2
    convention: Convention = "correlation" if conjugate else "convolution"
    sizes = in1.size, in2.size
    if all(map(is_static, sizes)) and sizes[0] < sizes[1]:
        # Convolution commutes; a correlation is first written as the convolution with the flipped kernel.
        in1, in2 = (jnp.flip(in2) if conjugate else in2), in1
        convention = "convolution"
        if not isinstance(method, str):
            # The second entry of a triple is for the gradient of in1, which is the kernel now.
            method = (method[0], method[2], method[1])
    x, w = (lax.expand_dims(array, (0, 1, 2)) for array in (in1, in2))
    return lax.squeeze(_convolve_sections(x, w, sections, convention, method, precision), (0, 1, 2))


def _convolve_sections(
    x: jax.Array, w: jax.Array, sections: Sections, convention: Convention, method: Method, precision: Any
) -> jax.Array:
    """Convolve canonical operands and return the given sections of the full convolution."""
    shapes = zip(x.shape[3:], w.shape[3:], sections, strict=True)
    padding = [(m - 1 - start, start + length - n) for n, m, (start, length) in shapes]
    return _ops.conv(x, w, padding=padding, convention=convention, method=method, precision=precision)
