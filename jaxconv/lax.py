"""Convolutions with the signatures of `jax.lax`, either convention, and a choice of algorithm."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv import _ops
from jaxconv._spec import Convention, Method, dilated

__all__ = ["conv_general_dilated"]


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
    *,
    convention: Convention = "correlation",
    method: Method = "direct",
) -> jax.Array:
    r"""General n-dimensional convolution with optional dilation, as `jax.lax.conv_general_dilated`.

    With the default convention it computes what `jax.lax` computes, which is a correlation:

    .. math:: y[n, o, m] = \sum_{c, k} w[o, c, k] \, x[n, c, m s + k d]

    (stride *s*, kernel dilation *d*, *x* dilated and padded). With ``convention="convolution"`` the kernel is reversed
    along its spatial axes first, under the same padding: :math:`w[o, c, K - 1 - k]`.

    Parameters
    ----------
    lhs
        Input of rank ``n + 2``: batch, features and n spatial axes, in the order of ``dimension_numbers``.
    rhs
        Kernel of rank ``n + 2``, of the same dtype: output features, input features in each group, n spatial axes.
    window_strides
        n positive integers.
    padding
        ``"SAME"``, ``"SAME_LOWER"``, ``"VALID"``, or n pairs ``(low, high)``; negative numbers crop.
    lhs_dilation, rhs_dilation
        n positive integers each, ones by default: the spacing of the samples of the input (transposed convolution) and
        of the kernel (atrous convolution).
    dimension_numbers
        As for `jax.lax.conv_dimension_numbers`: None for NCHW, OIHW, NCHW; a triple of strings such as
        ``("NHWC", "HWIO", "NHWC")``; or a `jax.lax.ConvDimensionNumbers`.
    feature_group_count, batch_group_count
        Positive integers, of which at most one may exceed 1.
    precision
        As for `jax.lax`.
    preferred_element_type
        dtype of the result (sums are formed in float32 for half precision in any case).
    out_sharding
        Sharding of the result, on a mesh with explicit axes.
    convention
        ``"correlation"`` (as `jax.lax`) or ``"convolution"``.
    method
        ``"direct"``: the fastest algorithm that is no FFT, so that exact zeros, causality and NaN stay where
        `jax.lax` keeps them. ``"auto"``: the fastest of all. Or the name of an algorithm, or a triple of names
        (see `jaxconv.plan`).

    Returns
    -------
    jax.Array
        The result, in the layout of ``dimension_numbers``.

    Raises
    ------
    TypeError
        If the dtypes differ or are not numeric, or if strides, dilations, padding or group counts are no integers.
    ValueError
        If shapes, group counts, padding, strides or dilations do not fit each other.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv.lax import conv_general_dilated
    >>> x = jnp.array([[[0.0, 0.0, 1.0, 0.0, 0.0]]])  # batch, channel, space
    >>> w = jnp.array([[[1.0, 2.0, 3.0]]])
    >>> conv_general_dilated(x, w, (1,), "VALID")
    Array([[[3., 2., 1.]]], dtype=float32)
    >>> conv_general_dilated(x, w, (1,), "VALID", convention="convolution")
    Array([[[1., 2., 3.]]], dtype=float32)
    """
    return _conv_general_dilated(
        _ops.as_array(lhs),
        _ops.as_array(rhs),
        strides=_hashable(window_strides),
        padding=_hashable(padding),
        lhs_dilation=_hashable(lhs_dilation),
        rhs_dilation=_hashable(rhs_dilation),
        dimension_numbers=_hashable(dimension_numbers),
        feature_groups=feature_group_count,
        batch_groups=batch_group_count,
        precision=_ops.lax_precision(precision),
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
        convention=convention,
        method=_hashable(method),
    )


def _hashable(value: Any) -> Any:
    """Turn (nested) lists and NumPy arrays into tuples, so that they can be static arguments."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, lax.ConvDimensionNumbers):
        return lax.ConvDimensionNumbers(*map(tuple, value))
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


@functools.partial(
    jax.jit,
    static_argnames=(
        "strides",
        "padding",
        "lhs_dilation",
        "rhs_dilation",
        "dimension_numbers",
        "feature_groups",
        "batch_groups",
        "precision",
        "preferred_element_type",
        "out_sharding",
        "convention",
        "method",
    ),
)
def _conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    *,
    strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_groups: int,
    batch_groups: int,
    precision: Any,
    preferred_element_type: Any,
    out_sharding: Any,
    convention: Convention,
    method: Method,
) -> jax.Array:
    if lhs.dtype != rhs.dtype:
        raise TypeError(
            f"lhs and rhs must have the same dtype, got {lhs.dtype} and {rhs.dtype}: convert one of them with .astype"
        )
    if lhs.ndim != rhs.ndim or lhs.ndim < 2:
        raise ValueError(
            "lhs and rhs must have the same rank, at least 2 (batch or output features, input features, *spatial), got "
            f"shapes {lhs.shape} and {rhs.shape}"
        )
    ndim = lhs.ndim - 2
    strides = _ops.positive("window_strides", strides, ndim)
    lhs_dilation = _ops.positive("lhs_dilation", lhs_dilation, ndim)
    rhs_dilation = _ops.positive("rhs_dilation", rhs_dilation, ndim)
    dimensions = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    x = lhs.transpose(dimensions.lhs_spec)
    w = rhs.transpose(dimensions.rhs_spec)
    groups = _check_groups(x.shape, w.shape, feature_groups, batch_groups)
    if isinstance(padding, str):
        padding = _pads(padding, x.shape[2:], w.shape[2:], strides, lhs_dilation, rhs_dilation)
    if batch_groups > 1:
        x = x.reshape(groups, x.shape[0] // groups, *x.shape[1:])
    else:
        x = jnp.moveaxis(x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]), 1, 0)
    y = _ops.conv(
        x,
        w.reshape(groups, w.shape[0] // groups, *w.shape[1:]),
        strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        convention=convention,
        method=method,
        precision=precision,
        preferred_element_type=preferred_element_type,
        channels_last=ndim > 0 and dimensions.lhs_spec[1] == ndim + 1,
    )
    y = jnp.moveaxis(y, 0, 1)
    y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], *y.shape[3:])
    y = y.transpose([dimensions.out_spec.index(axis) for axis in range(y.ndim)])
    return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def _check_groups(x_shape: Sequence[int], w_shape: Sequence[int], feature_groups: int, batch_groups: int) -> int:
    """Return the number of groups, of either kind, if the shapes (N, C, ...) and (O, I, ...) agree with it."""
    for name, count in (("feature_group_count", feature_groups), ("batch_group_count", batch_groups)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {count!r} of type {type(count).__name__}")
        if count < 1:
            raise ValueError(f"{name} must be positive, got {count}")
    if feature_groups > 1 and batch_groups > 1:
        raise ValueError(
            "at most one of feature_group_count and batch_group_count may exceed 1, got "
            f"{feature_groups} and {batch_groups}"
        )
    groups = feature_groups * batch_groups
    if w_shape[0] % groups:
        raise ValueError(f"the kernel's {w_shape[0]} output features cannot be divided into {groups} groups")
    if x_shape[0] % batch_groups:
        raise ValueError(f"the batch of {x_shape[0]} cannot be divided into {batch_groups} groups")
    if x_shape[1] != w_shape[1] * feature_groups:
        raise ValueError(
            f"the input has {x_shape[1]} features, but the kernel expects {w_shape[1]} in each of {feature_groups} "
            "feature groups: the input's features must be the kernel's input features x feature_group_count"
        )
    return groups


def _pads(
    padding: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Turn a padding's name into pairs of numbers."""
    if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
        raise ValueError(f"unknown padding {padding!r}: choose 'SAME', 'SAME_LOWER', 'VALID' or pairs of integers")
    if any(d != 1 for d in lhs_dilation):
        raise ValueError(f"padding={padding!r} has no meaning with lhs_dilation={lhs_dilation}: give pairs of integers")
    window = [dilated(taps, d) for taps, d in zip(kernel, rhs_dilation, strict=True)]
    return lax.padtype_to_pads(sizes, window, strides, padding.upper())
