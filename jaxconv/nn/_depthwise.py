"""Convolutions of each feature by itself, and their mixtures."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as flax_promote_dtype
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv import lax
from jaxconv._boundary import Boundary
from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments
from jaxconv.nn._arguments import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT, Sizes
from jaxconv.nn._conv import Conv
from jaxconv.nn._paddings import Padding


class DepthwiseConv(Conv):
    """Depthwise convolution layer: each feature is convolved with filters of its own.

    It is `Conv` with ``feature_group_count=in_features`` and ``out_features=in_features * depth_multiplier``. Output
    feature ``c * depth_multiplier + i`` is input feature c filtered by the i-th of its filters, ``kernel[..., 0, c *
    depth_multiplier + i]``.

    Parameters
    ----------
    in_features
        Number of features.
    kernel_size
        Shape of the kernel: one integer per spatial axis; a single integer means one spatial axis.
    strides
        One integer per spatial axis, or one for all.
    depth_multiplier
        Number of filters for each feature.
    rngs
        Random keys for the initialisers.
    **options
        The other arguments of `Conv`.

    Raises
    ------
    TypeError, ValueError
        As `Conv`; a TypeError for ``out_features`` and ``feature_group_count``, which follow from the others.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> layer = nn.DepthwiseConv(3, (5, 5), boundary="reflect", rngs=nnx.Rngs(0))
    >>> layer.kernel.shape
    (5, 5, 1, 3)
    >>> layer(jnp.ones((2, 8, 8, 3))).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        in_features: int,
        kernel_size: int | Sequence[int],
        strides: Sizes = 1,
        *,
        depth_multiplier: int = 1,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        for name in ("out_features", "feature_group_count"):
            if name in options:
                raise TypeError(
                    f"DepthwiseConv takes no {name}, which follows from in_features and depth_multiplier: leave it away"
                )
        in_features = _arguments.positive("in_features", in_features)
        out_features = in_features * _arguments.positive("depth_multiplier", depth_multiplier)
        super().__init__(
            in_features, out_features, kernel_size, strides, feature_group_count=in_features, rngs=rngs, **options
        )


class SeparableConv(nnx.Module):
    """Depthwise separable convolution layer: `DepthwiseConv` without a bias, then a 1x1 `Conv` that mixes features.

    Parameters
    ----------
    in_features, out_features
        Number of input and of output features.
    kernel_size
        Shape of the depthwise kernel: one integer per spatial axis; a single integer means one spatial axis.
    strides, padding, input_dilation, kernel_dilation, boundary, cval
        Of the depthwise convolution, as for `Conv`.
    depth_multiplier
        Number of depthwise filters for each feature.
    use_bias
        Whether to add a bias at the end.
    depthwise_mask, pointwise_mask
        Arrays of the shapes of the two kernels by which they are multiplied at each call.
    dtype, param_dtype, precision, conv_general_dilated, promote_dtype, convention, method, rngs
        Of both convolutions, as for `Conv`.
    preferred_element_type
        dtype of the results of both convolutions. Between them it is converted to ``dtype``, if that is given.
    depthwise_init, pointwise_init, bias_init
        Initialisers.
    depthwise_metadata, pointwise_metadata, bias_metadata
        Metadata of the parameters, such as their sharding. The kernels' axes are ``(*spatial, 1, in_features *
        depth_multiplier)`` and ``(*spatial, in_features * depth_multiplier, out_features)``.

    Raises
    ------
    TypeError, ValueError
        As `Conv`.

    Notes
    -----
    The two layers are the attributes ``depthwise`` and ``pointwise``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> layer = nn.SeparableConv(3, 16, (3, 3), strides=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 8, 8, 3))).shape
    (2, 4, 4, 16)
    >>> layer.depthwise.kernel.shape, layer.pointwise.kernel.shape
    ((3, 3, 1, 3), (1, 1, 3, 16))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: Sizes = 1,
        *,
        depth_multiplier: int = 1,
        padding: Padding = "SAME",
        input_dilation: Sizes = 1,
        kernel_dilation: Sizes = 1,
        use_bias: bool = True,
        depthwise_mask: jax.Array | None = None,
        pointwise_mask: jax.Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Any = None,
        depthwise_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        pointwise_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        bias_init: Callable[..., Any] = DEFAULT_BIAS_INIT,
        conv_general_dilated: Callable[..., Any] = lax.conv_general_dilated,
        promote_dtype: Callable[..., Any] = flax_promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        depthwise_metadata: Mapping[str, Any] = MappingProxyType({}),
        pointwise_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        convention: Convention = "correlation",
        method: Method = "direct",
        boundary: Boundary | Sequence[Boundary] | None = None,
        cval: complex = 0.0,
    ):
        in_features = _arguments.positive("in_features", in_features)
        out_features = _arguments.positive("out_features", out_features)
        middle = in_features * _arguments.positive("depth_multiplier", depth_multiplier)
        kernel_size = _arguments.kernel_sizes(kernel_size)
        ones = (1,) * len(kernel_size)
        # Under the names that they have here, not those that the two layers know them by.
        _arguments.check_options(
            depthwise_init=depthwise_init,
            pointwise_init=pointwise_init,
            depthwise_metadata=depthwise_metadata,
            pointwise_metadata=pointwise_metadata,
        )
        depthwise_mask = _arguments.mask(
            depthwise_mask,
            (*kernel_size, 1, middle),
            "(*kernel_size, 1, in_features * depth_multiplier)",
            "depthwise_mask",
        )
        pointwise_mask = _arguments.mask(
            pointwise_mask,
            (*ones, middle, out_features),
            "(*ones, in_features * depth_multiplier, out_features)",
            "pointwise_mask",
        )
        common: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "precision": precision,
            "conv_general_dilated": conv_general_dilated,
            "promote_dtype": promote_dtype,
            "preferred_element_type": preferred_element_type,
            "rngs": rngs,
            "convention": convention,
            "method": method,
        }
        self.depthwise = DepthwiseConv(
            in_features,
            kernel_size,
            strides,
            depth_multiplier=depth_multiplier,
            padding=padding,
            input_dilation=input_dilation,
            kernel_dilation=kernel_dilation,
            use_bias=False,
            mask=depthwise_mask,
            kernel_init=depthwise_init,
            kernel_metadata=depthwise_metadata,
            boundary=boundary,
            cval=cval,
            **common,
        )
        self.pointwise = Conv(
            middle,
            out_features,
            ones,
            use_bias=use_bias,
            mask=pointwise_mask,
            kernel_init=pointwise_init,
            bias_init=bias_init,
            kernel_metadata=pointwise_metadata,
            bias_metadata=bias_metadata,
            **common,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Convolve ``inputs``.

        Parameters
        ----------
        inputs
            Shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none.
        out_sharding
            Sharding of the result, on a mesh with explicit axes.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *outputs, out_features)``.

        Raises
        ------
        ValueError
            If the input has too few axes or another number of features.
        """
        return self.pointwise(self.depthwise(inputs), out_sharding)
