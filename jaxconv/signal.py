"""Convolution and correlation with the names and semantics of `scipy.signal`.

Results have SciPy's values and shapes; dtypes follow JAX's promotion rules. Where they differ it says so in the
function and on the page "Deviations" of the documentation. ``method="auto"`` may use an FFT: its error is relative to
the largest value of the result, and a NaN or an infinity spreads over all of it. ``method="direct"`` is a promise,
kept by the gradients too, that each output is a sum of products of its own samples: no FFT, and NaN stays in its place.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv import _ops, _signal
from jaxconv._signal import Boundary, Mode
from jaxconv._spec import Method

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "correlation_lags", "fftconvolve"]


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
        ``"valid"``: only those that need no zero padding; one array must be at least as large as the other on every
        axis.
    method
        ``"auto"`` (the fastest algorithm), ``"direct"`` (the fastest that sums products sample by sample: no FFT), the
        name of an algorithm, or a triple of those for the result and for the gradients of ``in1`` and of ``in2`` (see
        `jaxconv.plan`).
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
        If the ranks differ, an input is empty (except ``in1`` in mode ``"same"``, whose result is empty too), the mode
        or the method is unknown, or neither array is at least as large as the other in mode ``"valid"``; also for
        ``method="fft"`` with integers, which could not be exact.

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
    return _signal.convolve(
        _ops.as_array(in1),
        _ops.as_array(in2),
        mode=mode,
        method=_key(method),
        precision=_ops.lax_precision(precision),
        conjugate=False,
    )


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

    for the lags *l* that `correlation_lags` gives. It is the convolution of ``in1`` with the flipped conjugate of
    ``in2``, so that exchanging the arguments flips and conjugates the full result.

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
    return _signal.convolve(
        _ops.as_array(in1),
        _ops.as_array(in2),
        mode=mode,
        method=_key(method),
        precision=_ops.lax_precision(precision),
        conjugate=True,
    )


def fftconvolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: Mode = "full",
    axes: int | Sequence[int] | None = None,
    *,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    """Convolve two N-dimensional arrays by FFT, as `scipy.signal.fftconvolve`.

    The transforms have the next length with factors 2, 3, 5 and 7 only. Axes on which either array has length 1, and
    all that are not in ``axes``, broadcast.

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
        If an input is boolean or not numeric, or ``axes`` are no integers.
    ValueError
        If the ranks or the lengths of broadcast axes differ, ``axes`` are empty, out of range or repeated, the mode is
        unknown, or neither array is at least as large as the other in mode ``"valid"``.

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
    return _signal.fftconvolve(
        _ops.as_array(in1), _ops.as_array(in2), mode=mode, axes=_axes(axes), precision=_ops.lax_precision(precision)
    )


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
        What lies around ``in1``: ``"fill"`` or ``"pad"`` (``fillvalue``), ``"wrap"`` or ``"circular"`` (periodic),
        ``"symm"`` or ``"symmetric"`` (mirrored, the edge repeated).
    fillvalue
        Scalar, converted to the dtype of the result; integers wrap, as all integers do in JAX.
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
        As `convolve`; also if an input is not two-dimensional, the boundary is unknown, or ``fillvalue`` is no scalar
        or is complex where the result is real.

    Examples
    --------
    >>> from jaxconv.signal import convolve2d
    >>> print(convolve2d([[1, 2], [3, 4]], [[1, 10]], mode="same", boundary="wrap"))
    [[21 12]
     [43 34]]
    """
    return _signal.convolve2d(
        _ops.as_array(in1),
        _ops.as_array(in2),
        _fill(fillvalue),
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
    As in SciPy, mode ``"same"`` starts at ``M // 2`` of the full correlation, which for even M is one sample after
    where `correlate` starts. Unlike SciPy's, mode ``"valid"`` with a larger complex ``in2`` agrees with `correlate`
    (SciPy's returns the conjugate of that).

    Examples
    --------
    >>> from jaxconv.signal import correlate2d
    >>> print(correlate2d([[1, 2], [3, 4]], [[1, 10]], mode="same", boundary="symm"))
    [[21 22]
     [43 44]]
    """
    return _signal.convolve2d(
        _ops.as_array(in1),
        _ops.as_array(in2),
        _fill(fillvalue),
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
    TypeError
        If a length is no integer.
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
    _signal.check_mode(mode)
    in1_len, in2_len = operator.index(in1_len), operator.index(in2_len)
    if in1_len < 1 or in2_len < 1:
        raise ValueError(f"the lengths of the inputs must be positive, got {in1_len} and {in2_len}")
    start, length = _signal.section(mode, in1_len, in2_len)
    first = start - in2_len + 1
    return jnp.asarray(np.arange(first, first + length))


def _fill(value: ArrayLike) -> jax.Array | None:
    """Return None for zero, which takes no padding of its own."""
    return None if isinstance(value, (int, float, complex)) and value == 0 else _ops.as_array(value)


def _key(method: Any) -> Any:
    """Return the method in a form that can be a static argument."""
    return tuple(method) if isinstance(method, list) else method


def _axes(axes: Any) -> tuple[int, ...] | None:
    if axes is None:
        return None
    try:
        return tuple(map(operator.index, axes if isinstance(axes, Iterable) else (axes,)))
    except TypeError:
        raise TypeError(f"axes must be an integer or a sequence of integers, got {axes!r}") from None
