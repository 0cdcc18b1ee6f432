"""`flax.nnx.ConvTranspose` with groups, output padding, and a choice of convention and of algorithm."""

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
from jaxconv._flip import flip
from jaxconv._lax import transposed_pads
from jaxconv._ops import check_convention
from jaxconv._plan import check_method
from jaxconv._spec import Convention, Method, dilated, toggle
from jaxconv.nn import _arguments, _paddings
from jaxconv.nn._arguments import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT, Sizes
from jaxconv.nn._conv import with_choices
from jaxconv.nn._paddings import Padding


class ConvTranspose(nnx.ConvTranspose):
    r"""Transposed convolution layer: `flax.nnx.ConvTranspose`, with more arguments.

    It convolves the input with ``strides - 1`` zeros put between neighbours. With the default
    ``convention="correlation"`` it computes what `flax.nnx.ConvTranspose` computes from the same parameters,

    .. math:: y[n, m, o] = b[o] + \sum_{k, c} w[k, c, o] \, z[n, m + k d - p, c]

    (*z* the input with zeros, *d* the kernel's dilation, *p* samples of padding in front), and with
    ``convention="convolution"`` the same with :math:`w[K - 1 - k, c, o]`. ``transpose_kernel=True`` reads the kernel
    of a `Conv` from ``out_features`` to ``in_features``, of which the layer is then the adjoint (but for the bias):
    it reverses the spatial axes once more and exchanges input and output features.

    Parameters
    ----------
    in_features, out_features
        Number of input and of output features, both multiples of ``feature_group_count``.
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
    transpose_kernel
        Whether the kernel is that of the convolution whose adjoint this is, of shape ``(*kernel_size, out_features //
        feature_group_count, in_features)``; otherwise it is of shape ``(*kernel_size, in_features //
        feature_group_count, out_features)``.
    use_bias, mask, dtype, param_dtype, precision, kernel_init, bias_init, promote_dtype, preferred_element_type, rngs
        As for `Conv`.
    kernel_metadata, bias_metadata, convention, method, feature_group_count
        As for `Conv`.
    output_padding
        How many outputs to append on each spatial axis to those that the padding gives, as in torch: computed as if
        the padding at the end were larger, not zeros. One integer for all spatial axes, or one for each, smaller than
        the axis's stride or its dilation. A strided convolution maps inputs of several lengths to one length of its
        result; this says which of them the adjoint returns. ``"CIRCULAR"`` excludes it.
    conv_general_dilated
        The function that does the work, `jaxconv.lax.conv_general_dilated` by default. One of your own is called as by
        `flax.nnx.Conv`, with the strides as ``lhs_dilation``, and is also given ``convention`` and ``method`` where
        they are not the defaults. It gets a kernel of shape ``(*kernel_size, in_features // feature_group_count,
        out_features)`` in any case, which ``transpose_kernel`` has reversed already.

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
        feature_group_count: int = 1,
        output_padding: Sizes = 0,
        conv_general_dilated: Callable[..., Any] = lax.conv_general_dilated,
    ):
        in_features, out_features, groups = _arguments.features(in_features, out_features, feature_group_count)
        kernel_size = _arguments.kernel_sizes(kernel_size)
        ndim = len(kernel_size)
        strides = _arguments.sizes("strides", strides, ndim)
        padding = _paddings.transposed_padding(padding, ndim)
        kernel_dilation = _arguments.sizes("kernel_dilation", kernel_dilation, ndim)
        options: dict[str, Any] = {
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "bias_init": bias_init,
            "transpose_kernel": transpose_kernel,
            "promote_dtype": promote_dtype,
            "preferred_element_type": preferred_element_type,
            "rngs": rngs,
            "kernel_metadata": kernel_metadata,
            "bias_metadata": bias_metadata,
        }
        _arguments.check_options(kernel_init=kernel_init, conv_general_dilated=conv_general_dilated, **options)
        names = ("out_features", "in_features") if transpose_kernel else ("in_features", "out_features")
        features = (out_features, in_features) if transpose_kernel else (in_features, out_features)
        kernel_shape = (*kernel_size, features[0] // groups, features[1])
        mask = _arguments.mask(mask, kernel_shape, f"(*kernel_size, {names[0]} // feature_group_count, {names[1]})")
        self.convention: Convention = check_convention(convention)
        self.method = check_method(method)
        self.feature_group_count = groups
        self.output_padding = _paddings.output_paddings(output_padding, strides, kernel_dilation, padding, ndim)
        self.conv_general_dilated = conv_general_dilated
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            strides,
            padding=padding,
            kernel_dilation=kernel_dilation,
            mask=mask,
            precision=precision,
            # Flax's layer knows no groups.
            kernel_init=lambda key, _, dtype: kernel_init(key, kernel_shape, dtype),
            **options,
        )
        self.kernel_shape = kernel_shape
        _arguments.check_parameter("kernel", self.kernel, kernel_shape)
        if self.bias is not None:
            _arguments.check_parameter("bias", self.bias, (out_features,))

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
        ndim = len(self.kernel_size)
        inputs = _arguments.inputs(inputs, self.kernel_size, self.in_features)
        batch, spatial = inputs.shape[: -ndim - 1], inputs.shape[-ndim - 1 : -1]
        kernel = self.kernel[...] if self.mask is None else self.kernel[...] * self.mask
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)

        # Attributes may have been set.
        strides = _arguments.each(_arguments.sizes("strides", self.strides, ndim), ndim)
        dilation = _arguments.each(_arguments.sizes("kernel_dilation", self.kernel_dilation, ndim), ndim)
        last = (0, ndim + 1, *range(1, ndim + 1))  # where batch, features and space stand
        options = {} if self.preferred_element_type is None else {"preferred_element_type": self.preferred_element_type}
        function, kernel = self._adjoint(kernel) if self.transpose_kernel else (self._function(self.convention), kernel)
        y = function(
            inputs.reshape(math.prod(batch), *spatial, self.in_features),
            kernel,
            (1,) * ndim,
            self._pads(strides, dilation),
            lhs_dilation=strides,
            rhs_dilation=dilation,
            dimension_numbers=jax.lax.ConvDimensionNumbers(last, (ndim + 1, ndim, *range(ndim)), last),
            feature_group_count=self.feature_group_count,
            precision=self.precision,
            **options,
        )
        if self.padding == "CIRCULAR":
            for axis, (size, stride) in enumerate(zip(spatial, strides, strict=True), start=1):
                y = _wrap(y, axis, size * stride, self.transpose_kernel)
        if bias is not None:
            y += bias
        return y.reshape(*batch, *y.shape[1:])

    def _function(self, convention: Convention) -> Callable[..., Any]:
        return with_choices(self.conv_general_dilated, convention, self.method)

    def _adjoint(self, kernel: jax.Array) -> tuple[Callable[..., Any], jax.Array]:
        """Return the function and the kernel that make the adjoint of the convolution with a kernel.

        The kernel is read the other way round, and its features exchanged within each group.
        """
        ndim, groups = len(self.kernel_size), self.feature_group_count
        space, (out, features) = kernel.shape[:ndim], kernel.shape[ndim:]
        kernel = kernel.reshape(*space, out, groups, features // groups)
        kernel = jnp.moveaxis(kernel, -1, ndim).swapaxes(-1, -2).reshape(*space, features // groups, groups * out)
        if self.conv_general_dilated is lax.conv_general_dilated:
            return self._function(toggle(check_convention(self.convention))), kernel
        # Another function may know one convention only.
        return self._function(self.convention), flip(kernel, range(ndim))

    def _pads(self, strides: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
        """Return how many zeros stand around the dilated input."""
        ndim = len(self.kernel_size)
        window = [dilated(taps, d) for taps, d in zip(self.kernel_size, dilation, strict=True)]
        padding = "VALID" if self.padding == "CIRCULAR" else _paddings.transposed_padding(self.padding, ndim)
        pads = transposed_pads(padding, window, strides, False)
        more = _paddings.output_paddings(self.output_padding, strides, dilation, self.padding, ndim)
        return [(low, high + extra) for (low, high), extra in zip(pads, more, strict=True)]


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
