"""Convolutions of each feature by itself, and their mixtures."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv._boundary import Boundary
from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments
from jaxconv.nn._arguments import Padding, Sizes
from jaxconv.nn._conv import DEFAULT_BIAS_INIT, DEFAULT_KERNEL_INIT, Conv


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
        As `Conv`.

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
    strides, padding, kernel_dilation, boundary
        Of the depthwise convolution, as for `Conv`.
    depth_multiplier
        Number of depthwise filters for each feature.
    use_bias
        Whether to add a bias at the end.
    dtype, param_dtype, precision, convention, method
        Of both convolutions, as for `Conv`.
    depthwise_init, pointwise_init, bias_init
        Initialisers.
    rngs
        Random keys for the initialisers.

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
        kernel_dilation: Sizes = 1,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: Any = None,
        depthwise_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        pointwise_init: Callable[..., Any] = DEFAULT_KERNEL_INIT,
        bias_init: Callable[..., Any] = DEFAULT_BIAS_INIT,
        rngs: nnx.Rngs,
        convention: Convention = "correlation",
        method: Method = "direct",
        boundary: Boundary | Sequence[Boundary] | None = None,
    ):
        common: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "precision": precision,
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
            kernel_dilation=kernel_dilation,
            use_bias=False,
            kernel_init=depthwise_init,
            boundary=boundary,
            **common,
        )
        self.pointwise = Conv(
            self.depthwise.out_features,
            out_features,
            (1,) * len(self.depthwise.kernel_size),
            use_bias=use_bias,
            kernel_init=pointwise_init,
            bias_init=bias_init,
            **common,
        )

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve ``inputs`` of shape ``(*batch, *spatial, in_features)``.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *outputs, out_features)``.

        Raises
        ------
        ValueError
            If the input has too few axes or another number of features.
        """
        return self.pointwise(self.depthwise(inputs))
