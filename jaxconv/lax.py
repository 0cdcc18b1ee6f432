"""Convolutions with the signatures of `jax.lax`, either convention, and a choice of algorithm."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike

from jaxconv import _lax, _ops
from jaxconv._spec import Convention, Method, dilated

__all__ = [
    "conv",
    "conv_dimension_numbers",
    "conv_general_dilated",
    "conv_transpose",
    "conv_with_general_padding",
]


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
    return _lax.conv_general_dilated(
        _ops.as_array(lhs),
        _ops.as_array(rhs),
        strides=_lax.hashable(window_strides),
        padding=_lax.hashable(padding),
        lhs_dilation=_lax.hashable(lhs_dilation),
        rhs_dilation=_lax.hashable(rhs_dilation),
        dimension_numbers=_lax.hashable(dimension_numbers),
        feature_groups=feature_group_count,
        batch_groups=batch_group_count,
        precision=_ops.lax_precision(precision),
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
        convention=convention,
        method=_lax.hashable(method),
    )


def conv(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    *,
    convention: Convention = "correlation",
    method: Method = "direct",
) -> jax.Array:
    """Convolution of channels-first arrays without dilation, as `jax.lax.conv`.

    Parameters
    ----------
    lhs
        Input of shape ``(batch, in_features, *spatial)``.
    rhs
        Kernel of shape ``(out_features, in_features, *kernel)`` and of the same dtype.
    window_strides, padding, precision, preferred_element_type, convention, method
        As in `conv_general_dilated`, which this calls.

    Returns
    -------
    jax.Array
        Shape ``(batch, out_features, *outputs)``.

    Raises
    ------
    TypeError, ValueError
        As `conv_general_dilated`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv.lax import conv
    >>> conv(jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([[[1.0, 10.0]]]), (1,), "SAME")
    Array([[[21., 32., 43.,  4.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        precision=precision,
        preferred_element_type=preferred_element_type,
        convention=convention,
        method=method,
    )


def conv_with_general_padding(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    *,
    convention: Convention = "correlation",
    method: Method = "direct",
) -> jax.Array:
    """Convolution of channels-first arrays with any padding and dilation, as `jax.lax.conv_with_general_padding`.

    Parameters
    ----------
    lhs
        Input of shape ``(batch, in_features, *spatial)``.
    rhs
        Kernel of shape ``(out_features, in_features, *kernel)`` and of the same dtype.
    window_strides, padding, lhs_dilation, rhs_dilation, precision, preferred_element_type, convention, method
        As in `conv_general_dilated`, which this calls.

    Returns
    -------
    jax.Array
        Shape ``(batch, out_features, *outputs)``.

    Raises
    ------
    TypeError, ValueError
        As `conv_general_dilated`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv.lax import conv_with_general_padding
    >>> x, w = jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([[[1.0, 10.0]]])
    >>> conv_with_general_padding(x, w, (1,), ((0, 1),), None, (2,))
    Array([[[31., 42.,  3.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        precision=precision,
        preferred_element_type=preferred_element_type,
        convention=convention,
        method=method,
    )


def conv_transpose(
    lhs: ArrayLike,
    rhs: ArrayLike,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
    *,
    convention: Convention = "correlation",
    method: Method = "direct",
) -> jax.Array:
    r"""Transposed (fractionally strided) convolution, as `jax.lax.conv_transpose`.

    The input is dilated by the strides, then correlated with the kernel at stride one:

    .. math:: y[n, o, m] = \sum_{c, k} w[o, c, k] \, (x_{\uparrow s})[n, c, m + k d - p]

    With the default ``transpose_kernel=False`` this is not the adjoint of `conv_general_dilated`, which would be a
    convolution with the kernel's features exchanged; with ``transpose_kernel=True`` it is.

    Parameters
    ----------
    lhs
        Input of rank ``n + 2``.
    rhs
        Kernel of rank ``n + 2``, of the same dtype.
    strides
        n positive integers: the spacing of the input's samples in the output.
    padding
        ``"SAME"`` (outputs ``strides`` times as long as the input) or ``"VALID"``, which name the padding of the
        convolution that is transposed; or n pairs ``(low, high)`` that pad the dilated input, negative to crop.
    rhs_dilation
        n positive integers, ones by default.
    dimension_numbers
        As in `conv_general_dilated`, but channels-last by default: ``("NHWC", "HWIO", "NHWC")`` for two spatial axes.
    transpose_kernel
        Whether to toggle the convention and to exchange the kernel's two feature axes, which JAX does by flipping and
        transposing the array. Then ``rhs`` is the kernel of the convolution that is transposed.
    precision, preferred_element_type
        As in `conv_general_dilated`.
    use_consistent_padding
        Whether pairs are, as in PyTorch and as the names always are, the padding of the convolution that is transposed.
    convention
        ``"correlation"`` (as `jax.lax`) or ``"convolution"``: of the formula above where ``transpose_kernel`` is False;
        of the convolution that is transposed where it is True.
    method
        As in `conv_general_dilated`.

    Returns
    -------
    jax.Array
        The result, in the layout of ``dimension_numbers``.

    Raises
    ------
    TypeError, ValueError
        As `conv_general_dilated`; also a ValueError for more than three spatial axes without ``dimension_numbers``.

    References
    ----------
    Dumoulin, V. and Visin, F. (2016). A guide to convolution arithmetic for deep learning. arXiv:1603.07285.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxconv.lax import conv_transpose
    >>> x = jnp.array([[[1.0], [2.0]]])  # batch, space, channel
    >>> w = jnp.array([[[1.0]], [[10.0]], [[100.0]]])  # space, in, out
    >>> conv_transpose(x, w, (2,), "VALID")[0, :, 0]
    Array([100.,  10., 201.,  20.,   2.], dtype=float32)
    >>> conv_transpose(x, w, (2,), "VALID", transpose_kernel=True)[0, :, 0]
    Array([  1.,  10., 102.,  20., 200.], dtype=float32)
    """
    lhs, rhs = _ops.as_array(lhs), _ops.as_array(rhs)
    ndim = _lax.spatial_rank(lhs, rhs)
    strides = _ops.positive("strides", _lax.hashable(strides), ndim)
    rhs_dilation = _ops.positive("rhs_dilation", _lax.hashable(rhs_dilation), ndim)
    numbers = _lax.transposed_layout(dimension_numbers, lhs.shape, rhs.shape)
    window = [dilated(rhs.shape[axis], d) for axis, d in zip(numbers.rhs_spec[2:], rhs_dilation, strict=True)]
    pads = _lax.transposed_pads(_lax.hashable(padding), window, strides, use_consistent_padding)
    if transpose_kernel:
        convention = "convolution" if _ops.check_convention(convention) == "correlation" else "correlation"
        out_features, in_features, *spatial = numbers.rhs_spec
        numbers = numbers._replace(rhs_spec=(in_features, out_features, *spatial))
    return conv_general_dilated(
        lhs,
        rhs,
        (1,) * ndim,
        pads,
        strides,
        rhs_dilation,
        numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        convention=convention,
        method=method,
    )


def conv_dimension_numbers(
    lhs_shape: Sequence[int], rhs_shape: Sequence[int], dimension_numbers: Any
) -> lax.ConvDimensionNumbers:
    """Convert dimension numbers to their canonical form, as `jax.lax.conv_dimension_numbers`.

    Parameters
    ----------
    lhs_shape, rhs_shape
        Shapes of the operands.
    dimension_numbers
        None, a triple of strings, or the canonical form already, as for `conv_general_dilated`.

    Returns
    -------
    jax.lax.ConvDimensionNumbers
        Where the axes stand in both operands and in the result.

    Raises
    ------
    TypeError, ValueError
        If they are of none of these types or do not fit the shapes.

    Examples
    --------
    >>> from jaxconv.lax import conv_dimension_numbers
    >>> conv_dimension_numbers((8, 32, 32, 3), (5, 5, 3, 16), ("NHWC", "HWIO", "NHWC"))
    ConvDimensionNumbers(lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2))
    """
    return lax.conv_dimension_numbers(lhs_shape, rhs_shape, dimension_numbers)
