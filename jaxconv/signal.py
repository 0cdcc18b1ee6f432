"""Convolution and correlation with the names and semantics of `scipy.signal`.

Results have SciPy's values and shapes; dtypes follow JAX's promotion rules. Where they differ it says so in the function
and on the page "Deviations" of the documentation. ``method="auto"`` may use an FFT: its error is relative to the largest
value of the result, and a NaN or an infinity spreads over all of it. ``method="direct"`` is a promise, kept by the gradients
too, that no FFT is used.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv import _ops
from jaxconv._spec import Convention, Method

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "correlation_lags", "fftconvolve"]

Mode = Literal["full", "same", "valid"]
Boundary = Literal["fill", "wrap", "symm"]

_MODES = ("full", "same", "valid")
# SciPy's names for the ways to extend an image, and those of `jax.numpy.pad`.
_BOUNDARIES = {"fill": "constant", "wrap": "wrap", "symm": "symmetric"}


def convolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    method: Method = "auto",
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Convolve two N-dimensional arrays, as `scipy.signal.convolve`.

    .. math:: y[m] = \sum_k in1[m - k] \, in2[k]

    Parameters
    ----------
    in1, in2
        Arrays of the same rank: real, complex or integer, array-likes such as lists included.
    mode
        ``"full"``: all ``N + M - 1`` outputs. ``"same"``: as many as ``in1`` has, centred: those from ``(M - 1) // 2``.
        ``"valid"``: only those that need no zero padding; one array must be at least as large as the other on every axis.
    method
        ``"auto"`` (the fastest algorithm), ``"direct"`` (the fastest that is no FFT), or the name of an algorithm, or a
        triple of names (see `jaxconv.plan`).
    precision
        Precision of products on accelerators, as for `jax.lax.dot_general`.

    Returns
    -------
    jax.Array
        The convolution; its dtype is the promoted dtype of the inputs. Integers give exact results, modulo the range of
        their dtype; half precision is summed in float32.

    Raises
    ------
    TypeError
        If an input is boolean or not numeric.
    ValueError
        If the ranks differ, an input is empty, the mode or the method is unknown, or neither array is at least as large as
        the other in mode ``"valid"``; also for ``method="fft"`` with integers, which could not be exact.

    Notes
    -----
    Unlike SciPy's, ``method="fft"`` refuses integers instead of rounding the result of a floating-point FFT.

    References
    ----------
    A. V. Oppenheim, R. W. Schafer, *Discrete-Time Signal Processing*, 3rd ed., 2010, chapter 2.

    Examples
    --------
    >>> from jaxconv.signal import convolve
    >>> print(convolve([1, 2, 3], [0, 1, 5]))
    [ 0  1  7 13 15]
    >>> print(convolve([1, 2, 3], [0, 1, 5], mode="same"))
    [ 1  7 13]
    """
    return _convolve(in1, in2, mode=mode, method=_key(method), precision=_ops.lax_precision(precision), conjugate=False)


def correlate(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    method: Method = "auto",
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Cross-correlate two N-dimensional arrays, as `scipy.signal.correlate`.

    .. math:: z[l] = \sum_k in1[k + l] \, \overline{in2[k]}

    for the lags *l* that `correlation_lags` gives. It is the convolution of ``in1`` with the flipped conjugate of ``in2``, so
    that exchanging the arguments flips and conjugates the result.

    Parameters
    ----------
    in1, in2
        Arrays of the same rank: real, complex or integer, array-likes such as lists included.
    mode
        ``"full"``, ``"same"`` or ``"valid"``, as in `convolve`.
    method
        As in `convolve`.
    precision
        As in `convolve`.

    Returns
    -------
    jax.Array
        The correlation; its dtype is the promoted dtype of the inputs.

    Raises
    ------
    TypeError, ValueError
        As `convolve`.

    References
    ----------
    A. V. Oppenheim, R. W. Schafer, *Discrete-Time Signal Processing*, 3rd ed., 2010, chapter 2.

    Examples
    --------
    >>> from jaxconv.signal import correlate
    >>> print(correlate([1, 2, 3], [0, 1, 5]))
    [ 5 11 17  3  0]
    """
    return _convolve(in1, in2, mode=mode, method=_key(method), precision=_ops.lax_precision(precision), conjugate=True)


def fftconvolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    axes: int | Sequence[int] | None = None,
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    """Convolve two N-dimensional arrays by FFT, as `scipy.signal.fftconvolve`.

    The transforms have the next length with factors 2, 3, 5 and 7 only. Axes on which either array has length 1, and all
    that are not in ``axes``, broadcast.

    Parameters
    ----------
    in1, in2
        Arrays of the same rank: real, complex or integer (converted to floating point).
    mode
        ``"full"``, ``"same"`` or ``"valid"``, as in `convolve`; ``"same"`` crops broadcast axes to those of ``in1``.
    axes
        Axes to convolve over, all of them by default.
    precision
        As in `convolve`.

    Returns
    -------
    jax.Array
        The convolution, floating point; of shape ``(0,)`` if an input is empty.

    Raises
    ------
    TypeError
        If an input is not numeric.
    ValueError
        If the ranks or the lengths of broadcast axes differ, ``axes`` are out of range or repeated, the mode is unknown, or
        neither array is at least as large as the other in mode ``"valid"``.

    Notes
    -----
    Half precision is computed in float32 and returned in the dtype of the inputs; SciPy returns float32.

    References
    ----------
    T. G. Stockham, *High-speed convolution and correlation*, AFIPS Spring Joint Computer Conference, 1966.

    Examples
    --------
    >>> import numpy as np
    >>> from jaxconv.signal import fftconvolve
    >>> print(np.round(fftconvolve([1.0, 2.0, 3.0], [0.0, 1.0, 5.0])))
    [ 0.  1.  7. 13. 15.]
    """
    axes = axes if axes is None or isinstance(axes, int) else tuple(axes)
    return _fftconvolve(in1, in2, mode=mode, axes=axes, precision=_ops.lax_precision(precision))


def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    boundary: Boundary = "fill",
    fillvalue: ArrayLike = 0,
    method: Method = "auto",
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    """Convolve two 2-dimensional arrays under a boundary condition, as `scipy.signal.convolve2d`.

    Only ``in1`` is extended, so that with ``"wrap"`` or ``"symm"`` the arguments cannot be exchanged.

    Parameters
    ----------
    in1, in2
        Two-dimensional arrays: real, complex or integer.
    mode
        ``"full"``, ``"same"`` or ``"valid"``, as in `convolve`.
    boundary
        What lies around ``in1``: ``"fill"`` (``fillvalue``), ``"wrap"`` (periodic) or ``"symm"`` (mirrored, the edge
        repeated).
    fillvalue
        Scalar, converted to the dtype of the result.
    method
        As in `convolve`.
    precision
        As in `convolve`.

    Returns
    -------
    jax.Array
        The convolution; its dtype is the promoted dtype of the inputs.

    Raises
    ------
    TypeError
        If an input is boolean or not numeric.
    ValueError
        If an input is not two-dimensional or is empty, the mode or the boundary is unknown, ``fillvalue`` is no scalar,
        or neither array is at least as large as the other in mode ``"valid"``.

    Examples
    --------
    >>> from jaxconv.signal import convolve2d
    >>> print(convolve2d([[1, 2], [3, 4]], [[1, 10]], mode="same", boundary="wrap"))
    [[21 12]
     [43 34]]
    """
    return _convolve2d(
        in1,
        in2,
        fillvalue,
        mode=mode,
        boundary=boundary,
        method=_key(method),
        precision=_ops.lax_precision(precision),
        conjugate=False,
    )


def correlate2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    boundary: Boundary = "fill",
    fillvalue: ArrayLike = 0,
    method: Method = "auto",
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    """Cross-correlate two 2-dimensional arrays under a boundary condition, as `scipy.signal.correlate2d`.

    Parameters
    ----------
    in1, in2, mode, boundary, fillvalue, method, precision
        As in `convolve2d`.

    Returns
    -------
    jax.Array
        The correlation; its dtype is the promoted dtype of the inputs.

    Raises
    ------
    TypeError, ValueError
        As `convolve2d`.

    Notes
    -----
    As in SciPy, mode ``"same"`` starts at ``M // 2`` of the full correlation, which for even M is one sample after where
    `correlate` starts. Unlike SciPy's, mode ``"valid"`` with a larger complex ``in2`` agrees with `correlate` (SciPy's
    returns the conjugate of that).

    Examples
    --------
    >>> from jaxconv.signal import correlate2d
    >>> print(correlate2d([[1, 2], [3, 4]], [[1, 10]], mode="same", boundary="symm"))
    [[12 22]
     [34 44]]
    """
    return _convolve2d(
        in1,
        in2,
        fillvalue,
        mode=mode,
        boundary=boundary,
        method=_key(method),
        precision=_ops.lax_precision(precision),
        conjugate=True,
    )


def correlation_lags(in1_len: int, in2_len: int, mode: Mode = "full") -> jax.Array:
    """Return the lag of each output of a one-dimensional `correlate`, as `scipy.signal.correlation_lags`.

    Parameters
    ----------
    in1_len, in2_len
        Lengths of the inputs, positive.
    mode
        ``"full"``, ``"same"`` or ``"valid"``, as in `correlate`.

    Returns
    -------
    jax.Array
        Integers, one for each output.

    Raises
    ------
    ValueError
        If a length is not positive or the mode is unknown.

    Notes
    -----
    Mode ``"same"`` matches `correlate` for every pair of lengths; SciPy's is one off for odd ``in1_len`` and even
    ``in2_len``, such as (7, 8).

    Examples
    --------
    >>> from jaxconv.signal import correlation_lags
    >>> print(correlation_lags(4, 3))
    [-2 -1  0  1  2  3]
    >>> print(correlation_lags(3, 4, mode="valid"))
    [-1  0]
    """
    if in1_len < 1 or in2_len < 1:
        raise ValueError(f"the lengths of the inputs must be positive, got {in1_len} and {in2_len}")
    start, length = _section(_check_mode(mode), in1_len, in2_len)
    return jnp.arange(length) + (start - in2_len + 1)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _key(method: Any) -> Any:
    """Return the method in a form that can be a static argument."""
    return tuple(method) if isinstance(method, list) else method


def _check_mode(mode: Any) -> Mode:
    if mode not in _MODES:
        raise ValueError(f"unknown mode {mode!r}: choose one of {', '.join(map(repr, _MODES))}")
    return mode


def _section(mode: Mode, size: int, taps: int) -> tuple[int, int]:
    """Return where a mode starts in the full convolution of one axis, and how many outputs it has."""
    if mode == "full":
        return 0, size + taps - 1
    if mode == "same":
        return (taps - 1) // 2, size
    return min(size, taps) - 1, abs(size - taps) + 1


def _inputs(in1: ArrayLike, in2: ArrayLike) -> tuple[jax.Array, jax.Array]:
    in1, in2 = jnp.asarray(in1), jnp.asarray(in2)
    for name, array in (("in1", in1), ("in2", in2)):
        _ops.check_numeric(name, array.dtype)
    if in1.ndim != in2.ndim:
        raise ValueError(
            f"in1 and in2 must have the same number of dimensions, got {in1.ndim} and {in2.ndim} (shapes {in1.shape} and "
            f"{in2.shape}): add axes of length 1 where they are missing"
        )
    return in1, in2


def _check_valid(mode: Mode, shape1: Sequence[int], shape2: Sequence[int]) -> None:
    if mode != "valid":
        return
    pairs = list(zip(shape1, shape2, strict=True))
    if not (all(a >= b for a, b in pairs) or all(a <= b for a, b in pairs)):
        raise ValueError(
            "for mode 'valid' one input must be at least as large as the other on every axis, got shapes "
            f"{tuple(shape1)} and {tuple(shape2)}"
        )


def _convolve_sections(
    signal: jax.Array,
    kernel: jax.Array,
    sections: Sequence[tuple[int, int]],
    convention: Convention,
    method: Method,
    precision: Any,
) -> jax.Array:
    """Convolve canonical operands; ``sections`` are the start and length of what to return of the full convolution."""
    sizes, taps = signal.shape[3:], kernel.shape[3:]
    padding = [
        (k - 1 - start, start + length - n) for n, k, (start, length) in zip(sizes, taps, sections, strict=True)
    ]
    return _ops.conv(signal, kernel, padding=padding, convention=convention, method=method, precision=precision)


def _convolve_arrays(
    in1: jax.Array,
    in2: jax.Array,
    sections: Sequence[tuple[int, int]],
    conjugate: bool,
    method: Method,
    precision: Any,
) -> jax.Array:
    """Convolve arrays of the same rank (or correlate the first with the second), the smaller one being the kernel."""
    in2 = jnp.conj(in2) if conjugate else in2
    convention: Convention = "correlation" if conjugate else "convolution"
    if math.prod(in2.shape) > math.prod(in1.shape):
        # Convolution commutes; a correlation is first written as the convolution with the flipped kernel.
        in1, in2 = (jnp.flip(in2) if conjugate else in2), in1
        convention = "convolution"
    return _convolve_sections(in1[None, None, None], in2[None, None, None], sections, convention, method, precision)[
        0, 0, 0
    ]


@functools.partial(jax.jit, static_argnames=("mode", "method", "precision", "conjugate"))
def _convolve(
    in1: ArrayLike, in2: ArrayLike, *, mode: Mode, method: Method, precision: Any, conjugate: bool
) -> jax.Array:
    in1, in2 = _inputs(in1, in2)
    _check_mode(mode)
    _check_valid(mode, in1.shape, in2.shape)
    if in1.size == 0 or in2.size == 0:
        if mode == "same" and in2.size:
            return jnp.zeros(in1.shape, jnp.result_type(in1, in2))
        raise ValueError(f"the inputs must not be empty, got shapes {in1.shape} and {in2.shape}")
    sections = [_section(mode, n, m) for n, m in zip(in1.shape, in2.shape, strict=True)]
    return _convolve_arrays(in1, in2, sections, conjugate, method, precision)


@functools.partial(jax.jit, static_argnames=("mode", "boundary", "method", "precision", "conjugate"))
def _convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    fillvalue: ArrayLike,
    *,
    mode: Mode,
    boundary: Boundary,
    method: Method,
    precision: Any,
    conjugate: bool,
) -> jax.Array:
    in1, in2 = _inputs(in1, in2)
    _check_mode(mode)
    if boundary not in _BOUNDARIES:
        raise ValueError(f"unknown boundary {boundary!r}: choose one of {', '.join(map(repr, _BOUNDARIES))}")
    if in1.ndim != 2:
        raise ValueError(f"in1 and in2 must be two-dimensional, got shapes {in1.shape} and {in2.shape}")
    if in1.size == 0 or in2.size == 0:
        raise ValueError(f"the inputs must not be empty, got shapes {in1.shape} and {in2.shape}")
    if jnp.ndim(fillvalue) != 0:
        raise ValueError(f"fillvalue must be a scalar, got shape {jnp.shape(fillvalue)}")
    _check_valid(mode, in1.shape, in2.shape)
    sections = [_section(mode, n, m) for n, m in zip(in1.shape, in2.shape, strict=True)]
    if conjugate and mode == "same":
        sections = [(m // 2, n) for n, m in zip(in1.shape, in2.shape, strict=True)]
    if mode != "valid":
        # Extend the image as far as the outputs reach, and read the outputs off the valid part.
        reach = [(m - 1 - start, start + length - n) for (start, length), n, m in zip(sections, in1.shape, in2.shape)]
        in1 = in1.astype(jnp.result_type(in1, in2))
        values = {"constant_values": jnp.asarray(fillvalue).astype(in1.dtype)} if boundary == "fill" else {}
        in1 = jnp.pad(in1, reach, _BOUNDARIES[boundary], **values)
        sections = [(m - 1, n - m + 1) for n, m in zip(in1.shape, in2.shape, strict=True)]
    return _convolve_arrays(in1, in2, sections, conjugate, method, precision)


@functools.partial(jax.jit, static_argnames=("mode", "axes", "precision"))
def _fftconvolve(
    in1: ArrayLike, in2: ArrayLike, *, mode: Mode, axes: int | tuple[int, ...] | None, precision: Any
) -> jax.Array:
    in1, in2 = _inputs(in1, in2)
    _check_mode(mode)
    dtype = jnp.result_type(in1, in2)
    if not jnp.issubdtype(dtype, jnp.inexact):
        dtype = jnp.result_type(float)
    in1, in2 = in1.astype(dtype), in2.astype(dtype)
    if in1.size == 0 or in2.size == 0:
        return jnp.zeros((0,), dtype)
    convolved = [a for a in _convolved_axes(axes, in1.ndim) if in1.shape[a] != 1 and in2.shape[a] != 1]
    broadcast = [a for a in range(in1.ndim) if a not in convolved]
    for a in broadcast:
        if in1.shape[a] != in2.shape[a] and 1 not in (in1.shape[a], in2.shape[a]):
            raise ValueError(
                f"axis {a} is not convolved over, so that its lengths must be equal or 1, got shapes {in1.shape} and "
                f"{in2.shape}"
            )
    shape1, shape2 = ([array.shape[a] for a in convolved] for array in (in1, in2))
    _check_valid(mode, shape1, shape2)
    if mode == "same":
        for a in broadcast:
            if in1.shape[a] == 1:
                in2 = jax.lax.slice_in_dim(in2, (in2.shape[a] - 1) // 2, (in2.shape[a] - 1) // 2 + 1, axis=a)
    # Axes that both arrays have become groups, those of in1 alone the batch, those of in2 alone output channels.
    shared = [a for a in broadcast if in1.shape[a] == in2.shape[a]]
    only1 = [a for a in broadcast if in1.shape[a] != 1 and in2.shape[a] == 1]
    only2 = [a for a in broadcast if in1.shape[a] == 1 and in2.shape[a] != 1]
    groups, batch, out = (
        math.prod(max(in1.shape[a], in2.shape[a]) for a in axes) for axes in (shared, only1, only2)
    )
    x = in1.transpose(*shared, *only1, *only2, *convolved).reshape(groups, batch, 1, *shape1)
    w = in2.transpose(*shared, *only2, *only1, *convolved).reshape(groups, out, 1, *shape2)
    sections = [_section(mode, n, m) for n, m in zip(shape1, shape2, strict=True)]
    y = _convolve_sections(x, w, sections, "convolution", "fft", precision)
    order = (*shared, *only1, *only2, *convolved)
    lengths = [max(in1.shape[a], in2.shape[a]) for a in order[: len(broadcast)]]
    y = y.reshape(*lengths, *y.shape[3:])
    return y.transpose([order.index(a) for a in range(y.ndim)])


def _convolved_axes(axes: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    axes = (axes,) if isinstance(axes, int) else axes
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axes must lie between {-ndim} and {ndim - 1} for arrays of rank {ndim}, got {axes}")
    axes = tuple(a % ndim for a in axes)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axes must be unique, got {axes}")
    return axes
