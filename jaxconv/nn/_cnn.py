"""A small image classifier."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments
from jaxconv.nn._conv import Conv, changed_choices


class CNN(nnx.Module):
    """Small convolutional classifier of images.

    One block for each of ``widths``, of a convolution with ``SAME`` padding, a rectifier and a maximum over 2x2
    pixels; then a dense layer on all that is left of the image. The filters are ``convs[i].kernel``, the dense layer
    is ``head``. There is no normalisation.

    Reversing every filter along its spatial axes and changing the convention gives a network that computes the same
    function: pixels keep their places, so that the head needs no change.

    Parameters
    ----------
    in_features
        Number of channels of the images.
    num_classes
        Number of classes.
    image_shape
        Size of the images, one integer for each entry of ``kernel_size``, at least ``2 ** len(widths)`` each. An odd
        row or column at the end of what a block pools is left out.
    widths
        Number of filters of each block.
    kernel_size
        Shape of the filters.
    convention
        ``"correlation"`` or ``"convolution"``, in every block.
    method
        The algorithm of every block, as for `jaxconv.nn.Conv`: a name or a triple.
    dtype
        dtype of the computation; by default that of images and parameters together.
    param_dtype
        dtype of the parameters.
    conv
        What makes a block's convolution: `jaxconv.nn.Conv`, or for a network of plain Flax `flax.nnx.Conv`, which draws
        the same initial parameters. It is given ``convention`` and ``method`` where they are not the defaults.
    rngs
        Random keys for the initial parameters.

    Raises
    ------
    TypeError
        If an argument is not of its type.
    ValueError
        If a size is not positive or the images are too small for so many blocks; when called, if the images have
        another size.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.CNN(1, 10, image_shape=(8, 8), convention="convolution", rngs=nnx.Rngs(0))
    >>> [conv.kernel.shape for conv in model.convs]
    [(3, 3, 1, 16), (3, 3, 16, 32)]
    >>> model(jnp.ones((5, 8, 8, 1))).shape  # logits
    (5, 10)
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        image_shape: Sequence[int],
        widths: Sequence[int] = (16, 32),
        kernel_size: Sequence[int] = (3, 3),
        convention: Convention = "correlation",
        method: Method = "direct",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        conv: Callable[..., nnx.Conv] = Conv,
        rngs: nnx.Rngs,
    ):
        in_features = _arguments.positive("in_features", in_features)
        image_shape = _arguments.positives("image_shape", image_shape)
        kernel_size = _arguments.positives("kernel_size", kernel_size)
        widths = _arguments.positives("widths", widths, "block, such as (16, 32)")
        num_classes = _arguments.positive("num_classes", num_classes)
        if len(image_shape) != len(kernel_size):
            raise ValueError(
                f"image_shape={image_shape} and kernel_size={kernel_size} need one entry each for every spatial axis"
            )
        if min(image_shape) < 2 ** len(widths):
            raise ValueError(
                f"images of {image_shape} pixels cannot be halved by {len(widths)} blocks (widths={widths}): they need "
                f"{2 ** len(widths)} pixels along each axis, or fewer widths"
            )
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        _arguments.check_options(conv=conv, **options)
        self.image_shape = image_shape
        self.convs = nnx.List(
            conv(before, after, kernel_size, **options, **changed_choices(convention, method))
            for before, after in zip((in_features, *widths), widths, strict=False)
        )
        pixels = math.prod(size // 2 ** len(widths) for size in image_shape)
        self.head = nnx.Linear(pixels * widths[-1], num_classes, **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits of images.

        Parameters
        ----------
        images
            Shape ``(*batch, *image_shape, in_features)``, with any number of batch axes or none.

        Returns
        -------
        jax.Array
            Shape ``(*batch, num_classes)``.

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        ndim = len(self.image_shape)
        features = _arguments.array("the images", images)
        if features.shape[-ndim - 1 : -1] != self.image_shape:
            raise ValueError(
                f"a network with image_shape={self.image_shape} needs images of shape (*batch, "
                f"{', '.join(map(str, self.image_shape))}, features), got {features.shape}"
            )
        for conv in self.convs:
            features = _halve(nnx.relu(conv(features)), ndim)
        batch, rest = features.shape[: -ndim - 1], features.shape[-ndim - 1 :]
        return self.head(features.reshape(*batch, math.prod(rest)))


def _halve(features: jax.Array, ndim: int) -> jax.Array:
    """Take the maximum over cells of two pixels along each spatial axis, as `nnx.max_pool` with window and stride 2.

    Written as the maximum of even and odd samples, axis by axis: on CPUs the gradient of `nnx.max_pool` takes five to
    ten times as long, inside `scan` as outside. Equal maxima share the gradient.
    """
    for axis in range(features.ndim - 1 - ndim, features.ndim - 1):
        stop = features.shape[axis] // 2 * 2
        even, odd = (lax.slice_in_dim(features, start, stop, 2, axis) for start in (0, 1))
        features = lax.max(even, odd)
    return features
