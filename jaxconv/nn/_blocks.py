"""What the models are built of."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv.nn import _arguments

GROUP = 8


def group_norm(num_features: int, **options: Any) -> nnx.Module:
    """Return the models' own normalisation, which treats each image by itself.

    Mean and variance are taken over all pixels of groups of 8 features, or of all features where 8 does not divide
    their number (Wu and He, "Group normalization", 2018). Unlike batch normalisation it does the same in training as
    afterwards, keeps no statistics that `scan` and `vmap` would have to carry, and does not let the images of a batch,
    or its shards, depend on each other.
    """
    return nnx.GroupNorm(num_features, num_features // GROUP if num_features % GROUP == 0 else 1, **options)


class ConvNorm(nnx.Module):
    """Convolution, then a normalisation, or a bias in place of one.

    ``conv`` and ``norm`` make the two; the convolution is given the other arguments.
    """

    def __init__(
        self,
        conv: Callable[..., nnx.Module],
        in_features: int,
        out_features: int,
        *args: Any,
        norm: Callable[..., nnx.Module] | None,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = conv(in_features, out_features, *args, use_bias=norm is None, **options, **common)
        self.norm = None if norm is None else norm(out_features, **common)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Apply both to ``(batch, *spatial, in_features)``."""
        features = self.conv(features)  # type: ignore[operator]
        return features if self.norm is None else self.norm(features)  # type: ignore[operator]


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
