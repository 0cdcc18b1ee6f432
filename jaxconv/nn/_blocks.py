"""What the models are built of."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments

GROUP = 8


def given(convention: Convention, method: Method) -> dict[str, Any]:
    """Return those that are not the defaults, so that Flax's layers, which know neither, can stand in for ours."""
    choices = {"convention": (convention, "correlation"), "method": (method, "direct")}
    return {name: value for name, (value, default) in choices.items() if value != default}


class ConvNorm(nnx.Module):
    """Convolution without a bias, then a normalisation of each image by itself.

    Mean and variance are taken over all pixels of groups of 8 features, or of all features where 8 does not divide
    their number (Wu and He, "Group normalization", 2018). Unlike batch normalisation it does the same in training as
    afterwards, keeps no statistics that `scan` and `vmap` would have to carry, and does not let the images of a batch,
    or its shards, depend on each other.

    ``conv`` makes the convolution; it is given the other arguments.
    """

    def __init__(
        self,
        conv: Callable[..., nnx.Module],
        in_features: int,
        out_features: int,
        *args: Any,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = conv(in_features, out_features, *args, use_bias=False, **options, **common)
        groups = out_features // GROUP if out_features % GROUP == 0 else 1
        self.norm = nnx.GroupNorm(out_features, groups, **common)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Apply both to ``(batch, *spatial, in_features)``."""
        return self.norm(self.conv(features))  # type: ignore[operator]


def batched(images: jax.Array, kernel_size: tuple[int, ...], in_features: int) -> tuple[jax.Array, tuple[int, ...]]:
    """Return images with one batch axis, and the shape of the batch axes that they had.

    Raises
    ------
    ValueError
        If they are not ``(*batch, *spatial, in_features)`` with a pixel at least.
    """
    images = _arguments.inputs(images, kernel_size, in_features)
    shape, ndim = images.shape, len(kernel_size)
    batch, image = shape[: -ndim - 1], shape[-ndim - 1 :]
    if 0 in image:
        raise ValueError(f"images need a pixel along each spatial axis, got shape {shape}")
    return jnp.reshape(images, (math.prod(batch), *image)), batch
