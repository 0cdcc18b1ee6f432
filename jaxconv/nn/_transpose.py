"""`flax.nnx.ConvTranspose` with a choice of convention and of algorithm."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as flax_promote_dtype
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv import lax
from jaxconv._ops import check_convention
from jaxconv._plan import check_method
from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments
from jaxconv.nn._arguments import Padding, Sizes
from jaxconv.nn._conv import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT


class ConvTranspose(nnx.ConvTranspose):
    r"""Transposed convolution layer: `flax.nnx.ConvTranspose`, with ``convention`` and ``method``.

    It convolves the input with ``strides - 1`` zeros put between neighbours. With the default
    ``convention="correlation"`` it computes what `flax.nnx.ConvTranspose` computes from the same parameters,

    .. math:: y[n, m, o] = b[o] + \sum_{k, c} w[k, c, o] \, z[n, m + k d - p, c]

    (*z* the input with zeros, *d* the kernel's dilation, *p* samples of padding in front), and with
    ``convention="convolution"`` the same with :math:`w[K - 1 - k, c, o]`. ``transpose_kernel=True`` reads the kernel
    of a `Conv` from ``out_features`` to ``in_features``, of which the layer is then the adjoint (but for the bias):
    it reverses the spatial axes once more and exchanges the last two.

    Parameters
    ----------
    in_features, out_features
        Number of input and of output features.
    kernel_size
        Shape of the kernel: one integer per spatial axis; a single integer means one spatial axis.
    strides
        One integer per spatial axis, or one for all: how many times longer than the input the result is.
    padding
        ``"SAME"`` (as many outputs as inputs times strides), ``"VALID"`` (every output that meets an input),
        ``"CIRCULAR"`` (periodic, of the length of ``"SAME"``), an integer, or for each spatial axis an integer or a
        pair ``(low, high)``: numbers of zeros around the input that has zeros between its samples. (In torch the
        numbers are those of the convolution that is transposed: its p is ``kernel_dilation * (kernel_size - 1) - p``
        here.)
    kernel_dilation
        One integer per spatial axis, or one for all.
    use_bias
        Whether to add a bias.
    mask
        Array of the kernel's shape by which the kernel is multiplied at each call.
    dtype
        dtype of the computation; by default that of input and parameters together.
    param_dtype
        dtype of the parameters.
    precision
        As for `jax.lax.conv_general_dilated`.
    kernel_init, bias_init
        Initialisers.
    transpose_kernel
        Whether the kernel is that of the convolution whose adjoint this is, of shape ``(*kernel_size, out_features,
        in_features)``; otherwise it is of shape ``(*kernel_size, in_features, out_features)``.
    promote_dtype
        Function ``((input, kernel, bias), dtype=dtype)`` that returns the three in the dtype of the computation.
    preferred_element_type
        dtype of the convolution's result.
    rngs
        Random keys for the initialisers.
    kernel_metadata, bias_metadata
        Metadata of the parameters, such as their sharding.
    convention
        ``"correlation"`` (as Flax) or ``"convolution"``.
    method
        As for `Conv`.

    Raises
    ------
    TypeError
        If a stride, dilation, size or padding is no integer.
    ValueError
        If the arguments contradict each other or name no known padding, convention or method; when called, if the
        input's shape does not fit the layer.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> layer = nn.ConvTranspose(
    ...     1, 1, 3, 2, padding="VALID", use_bias=False, convention="convolution", rngs=nnx.Rngs(0)
    ... )
    >>> layer.kernel[...] = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> layer(jnp.array([[1.0], [0.0], [10.0]]))[:, 0]  # a copy of the kernel at each input
    Array([ 1.,  2.,  3.,  0., 10., 20., 30.], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: Sizes = None,
        *,
        padding: Padding = "SAME",
        kernel_dilation: Sizes = None,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Any = None,
        kernel_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        bias_init: Callable[..., Any] = DEFAULT_BIAS_INIT,
        transpose_kernel: bool = False,
        promote_dtype: Callable[..., Any] = flax_promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        convention: Convention = "correlation",
        method: Method = "direct",
    ):
        in_features = _arguments.positive("in_features", in_features)
        out_features = _arguments.positive("out_features", out_features)
        kernel_size = _arguments.positives(
            "kernel_size", kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,)
        )
        ndim = len(kernel_size)
        features = (out_features, in_features) if transpose_kernel else (in_features, out_features)
        if mask is not None and mask.shape != (*kernel_size, *features):
            raise ValueError(f"mask has shape {mask.shape}, but the kernel has {(*kernel_size, *features)}")
        check_convention(convention)
        self.convention: Convention = convention
        self.method = check_method(method)
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            _arguments.sizes("strides", strides, ndim),
            padding=_arguments.transposed_padding(padding, ndim),
            kernel_dilation=_arguments.sizes("kernel_dilation", kernel_dilation, ndim),
            use_bias=use_bias,
            mask=mask,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=kernel_init,
            bias_init=bias_init,
            transpose_kernel=transpose_kernel,
            promote_dtype=promote_dtype,
            preferred_element_type=preferred_element_type,
            rngs=rngs,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
        )

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve ``inputs``.

        Parameters
        ----------
        inputs
            Shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *outputs, out_features)``.

        Raises
        ------
        ValueError
            If the input has too few axes or another number of features.
        """
        shape, ndim = jnp.shape(inputs), len(self.kernel_size)
        _arguments.check_inputs(shape, self.kernel_size, self.in_features)
        batch, spatial = shape[: -ndim - 1], shape[-ndim - 1 : -1]
        kernel = self.kernel[...] if self.mask is None else self.kernel[...] * self.mask
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)

        strides, dilation = (_arguments.each(value, ndim) for value in (self.strides, self.kernel_dilation))
        last = (0, ndim + 1, *range(1, ndim + 1))  # where batch, features and space stand
        y = lax.conv_transpose(
            inputs.reshape(math.prod(batch), *spatial, self.in_features),
            kernel,
            strides,
            "VALID" if self.padding == "CIRCULAR" else _arguments.transposed_padding(self.padding, ndim),
            rhs_dilation=dilation,
            dimension_numbers=jax.lax.ConvDimensionNumbers(last, (ndim + 1, ndim, *range(ndim)), last),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
            convention=self.convention,
            method=self.method,
        )
        if self.padding == "CIRCULAR":
            for axis, (size, stride) in enumerate(zip(spatial, strides, strict=True), start=1):
                y = _wrap(y, axis, size * stride, self.transpose_kernel)
        if bias is not None:
            y += bias
        return y.reshape(*batch, *y.shape[1:])


def _wrap(y: jax.Array, axis: int, period: int, transpose_kernel: bool) -> jax.Array:
    """Add up what is whole periods apart along an axis, of which the middle stretch of one period keeps its place."""
    if period == 0:
        raise ValueError("padding='CIRCULAR' needs an input of which no spatial axis is empty")
    missing = -(y.shape[axis] - period) % (2 * period)
    # As Flax: even kernels have no centre, and that of the adjoint lies on the other side.
    before = missing // 2 if transpose_kernel else (missing + 1) // 2
    widths = [(0, 0)] * y.ndim
    widths[axis] = (before, missing - before)
    y = jnp.pad(y, widths)
    return y.reshape(*y.shape[:axis], -1, period, *y.shape[axis + 1 :]).sum(axis)
