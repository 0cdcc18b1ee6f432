"""Convolution and correlation of sequences, with the semantics of NumPy's functions of the same names."""

import functools
from typing import Any, Literal

import jax
import numpy as np
from jax import core, lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv import _ops, _signal
from jaxconv._spec import Method

Mode = Literal["full", "same", "valid"]

__all__ = ["convolve", "correlate"]


def convolve(
    a: ArrayLike,
    v: ArrayLike,
    mode: Mode = "full",
    *,
    method: Method = "auto",
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Convolve two sequences, as `numpy.convolve`.

    .. math:: (a * v)[n] = \sum_m a[m] \, v[n - m]

    Parameters
    ----------
    a, v
        One-dimensional, of lengths *N* and *M*; single numbers count as sequences of length one.
    mode
        ``"full"``: all ``N + M - 1`` outputs. ``"same"``: the middle ``max(N, M)``, which differs from
        `jaxconv.signal.convolve` where ``v`` is the longer one. ``"valid"``: the ``max(N, M) - min(N, M) + 1`` where
        one sequence lies within the other.
    method
        ``"auto"``, ``"direct"`` or the name of an algorithm, see `jaxconv.plan`.
    precision
        As in `jaxconv.signal.convolve`.

    Returns
    -------
    jax.Array
        One-dimensional; its dtype is the promoted dtype of the inputs.

    Raises
    ------
    TypeError
        If an input is no array of numbers or booleans.
    ValueError
        If an input is empty or has more than one dimension, if the mode or the method is unknown, or if the method
        does not compute such inputs.

    Notes
    -----
    Two boolean sequences give the logical convolution, whether any product is true, as in NumPy.

    References
    ----------
    A. V. Oppenheim, R. W. Schafer, *Discrete-Time Signal Processing*, 3rd ed., 2010, chapter 2.

    Examples
    --------
    >>> from jaxconv.numpy import convolve
    >>> print(convolve([1, 2, 3], [0, 1, 5]))
    [ 0  1  7 13 15]
    >>> print(convolve([1, 2], [0, 1, 5], "same"))
    [0 1 7]
    """
    return _convolve(
        _ops.as_array(a),
        _ops.as_array(v),
        mode=mode,
        method=_static(method),
        precision=_ops.lax_precision(precision),
        conjugate=False,
    )


def correlate(
    a: ArrayLike,
    v: ArrayLike,
    mode: Mode = "valid",
    *,
    method: Method = "auto",
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Cross-correlate two sequences, as `numpy.correlate`.

    .. math:: c[k] = \sum_n a[n + k] \, \overline{v[n]}

    so that exchanging the arguments reverses and conjugates the result, in every mode.

    Parameters
    ----------
    a, v
        One-dimensional, of lengths *N* and *M*.
    mode
        As in `convolve`, but ``"valid"`` by default. The lags of ``"full"`` run from ``1 - M`` to ``N - 1``; those of
        ``"same"`` start at ``-(M // 2)`` if ``N >= M``, and at ``N // 2 - M + 1`` if not; those of ``"valid"`` run
        between 0 and ``N - M``.
    method, precision
        As in `convolve`.

    Returns
    -------
    jax.Array
        One-dimensional; its dtype is the promoted dtype of the inputs.

    Raises
    ------
    TypeError, ValueError
        As `convolve`; and a ValueError for single numbers too, as in NumPy.

    Examples
    --------
    >>> from jaxconv.numpy import correlate
    >>> print(correlate([1, 2, 3], [0, 1, 5]))
    [17]
    >>> print(correlate([1, 2, 3], [0, 1, 5], "full"))
    [ 5 11 17  3  0]
    """
    return _convolve(
        _ops.as_array(a),
        _ops.as_array(v),
        mode=mode,
        method=_static(method),
        precision=_ops.lax_precision(precision),
        conjugate=True,
    )


@functools.partial(jax.jit, static_argnames=("mode", "method", "precision", "conjugate"))
def _convolve(a: jax.Array, v: jax.Array, *, mode: Mode, method: Method, precision: Any, conjugate: bool) -> jax.Array:
    _signal.check_mode(mode)
    if not conjugate:
        a, v = jnp.atleast_1d(a), jnp.atleast_1d(v)
    for name, array in (("a", a), ("v", v)):
        if array.ndim != 1:
            raise ValueError(
                f"{name} must be one-dimensional, got shape {array.shape}: for more dimensions see jaxconv.signal"
            )
        if array.size == 0:
            raise ValueError(f"{name} must not be empty")
    # A boolean beside numbers counts as 0 or 1; between booleans, a count that is not zero is true.
    dtype = jnp.result_type(a, v)
    logical = dtype == np.bool_
    a, v = (array.astype(np.int32 if logical else dtype) for array in (a, v))
    y = _signal.convolve_arrays(a, v, [_section(mode, a.size, v.size, conjugate)], conjugate, method, precision)
    return y != 0 if logical else y


def _section(mode: Mode, size: int, taps: int, conjugate: bool) -> tuple[int, int]:
    """Return where a mode starts in the full result, and how many outputs it has.

    Without comparing the lengths, which may be symbols of which either may be the longer one.
    """
    if mode == "full":
        return _signal.section(mode, size, taps)
    shorter, longer = core.min_dim(size, taps), core.max_dim(size, taps)
    if mode == "valid":
        return shorter - 1, longer - shorter + 1
    # NumPy exchanges the arguments of `correlate` if the second is longer and reverses the result, which moves the
    # middle of an even kernel by one.
    exchanged = core.min_dim(core.max_dim(taps - size, 0), 1) if conjugate else 0
    return (shorter - 1 + exchanged) // 2, longer


def _static(method: Any) -> Any:
    return tuple(method) if isinstance(method, list) else method
