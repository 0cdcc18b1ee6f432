"""A network from images to images."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv._boundary import extend
from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments, _blocks
from jaxconv.nn._blocks import ConvNorm, group_norm
from jaxconv.nn._conv import Conv, changed_choices
from jaxconv.nn._transpose import ConvTranspose


class _Pair(nnx.Module):
    """Two convolutions."""

    def __init__(
        self, conv: Callable[..., nnx.Module], before: int, after: int, kernel: tuple[int, ...], **options: Any
    ):
        self.first = ConvNorm(conv, before, after, kernel, **options)
        self.second = ConvNorm(conv, after, after, kernel, **options)

    def __call__(self, features: jax.Array) -> jax.Array:
        return nnx.relu(self.second(nnx.relu(self.first(features))))


class UNet(nnx.Module):
    """U-Net: a network from images to images of the same size, such as from blurred to sharp ones.

    A level for each of ``widths``, each of half the resolution of the one before. On the way down, two convolutions on
    each level, and a convolution of 2x2 pixels with stride 2 to the next. On the way up, a transposed convolution of
    2x2 pixels with stride 2, whose result is put beside what the level had on the way down, and two convolutions of
    both. A 1x1 convolution at the end (Ronneberger, Fischer and Brox, "U-Net", 2015; strided convolutions in place of
    maxima as in Zhang et al., "Plug-and-play image restoration with deep denoiser prior", 2021). The two convolutions
    of a level are each followed by a normalisation and a rectifier. By default that is `flax.nnx.GroupNorm` over groups
    of 8 features (of all, where 8 does not divide their number), which treats each image by itself and keeps no
    statistics.

    Parameters
    ----------
    in_features, out_features
        Number of channels of the images and of the results.
    widths
        Number of features of each level.
    kernel_size
        Shape of the filters, one integer for each spatial axis.
    residual
        Whether the images are added to the results, so that the network learns what to change; this needs
        ``out_features`` to equal ``in_features``.
    convention
        ``"correlation"`` or ``"convolution"``, in every layer.
    method
        The algorithm of every layer, as for `jaxconv.nn.Conv`: a name or a triple.
    dtype
        dtype of the computation; by default that of images and parameters together.
    param_dtype
        dtype of the parameters.
    conv, conv_transpose
        What makes the convolutions: `jaxconv.nn.Conv` and `jaxconv.nn.ConvTranspose`, or for a network of plain Flax
        those of `flax.nnx`, which draw the same initial parameters. They are given ``convention`` and ``method`` where
        they are not the defaults.
    norm
        What makes the normalisation behind a convolution, such as `flax.nnx.LayerNorm`, `flax.nnx.BatchNorm` (which
        keeps statistics) or ``functools.partial(flax.nnx.GroupNorm, num_groups=4)``; it is called as
        ``norm(num_features, dtype=..., param_dtype=..., rngs=...)``. With None the convolutions have a bias in place
        of one.
    rngs
        Random keys for the initial parameters.

    Raises
    ------
    TypeError
        If an argument is not of its type.
    ValueError
        If a size is not positive, or ``residual`` is set though the images and the results have different numbers of
        channels; when called, if the images have too few axes, another number of features or no pixel.

    Notes
    -----
    Images may have any size. Where one is no multiple of ``2 ** (len(widths) - 1)``, the image is extended at its end
    to the next multiple by repeating the last row or column, and the result is cropped, so that pixels of all levels
    are aligned as in an image that fits.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.UNet(3, 3, widths=(8, 16), residual=True, convention="convolution", rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 9, 14, 3))).shape
    (2, 9, 14, 3)
    >>> model.downs[0].kernel.shape, model.ups[0].kernel.shape, model.decoders[0].first.conv.kernel.shape
    ((2, 2, 8, 16), (2, 2, 16, 8), (3, 3, 16, 8))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        kernel_size: Sequence[int] = (3, 3),
        residual: bool = False,
        convention: Convention = "correlation",
        method: Method = "direct",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        conv: Callable[..., nnx.Module] = Conv,
        conv_transpose: Callable[..., nnx.Module] = ConvTranspose,
        norm: Callable[..., nnx.Module] | None = group_norm,
        rngs: nnx.Rngs,
    ):
        self.in_features = _arguments.positive("in_features", in_features)
        self.kernel_size = _arguments.positives("kernel_size", kernel_size)
        out_features = _arguments.positive("out_features", out_features)
        widths = _arguments.positives("widths", widths, "level, such as (16, 32, 64)")
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        _arguments.check_options(residual=residual, conv=conv, conv_transpose=conv_transpose, norm=norm, **options)
        if residual and in_features != out_features:
            raise ValueError(
                f"residual=True adds the images to the results, but in_features={in_features} and "
                f"out_features={out_features} differ"
            )
        self.residual = residual
        ndim = len(self.kernel_size)
        options |= changed_choices(convention, method)
        pair = functools.partial(_Pair, conv, kernel=self.kernel_size, norm=norm, **options)
        halves: dict[str, Any] = {"kernel_size": (2,) * ndim, "strides": (2,) * ndim, "padding": "VALID", **options}
        levels = list(itertools.pairwise(widths))
        inputs = (self.in_features, *widths[1:])
        self.encoders = nnx.List([pair(before, after) for before, after in zip(inputs, widths, strict=True)])
        self.downs = nnx.List([conv(fine, coarse, **halves) for fine, coarse in levels])
        self.ups = nnx.List([conv_transpose(coarse, fine, **halves) for fine, coarse in levels])
        self.decoders = nnx.List([pair(2 * fine, fine) for fine, _ in levels])
        self.head = conv(widths[0], out_features, (1,) * ndim, **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return what the network makes of images.

        Parameters
        ----------
        images
            Shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none, and of any size.

        Returns
        -------
        jax.Array
            Shape ``(*batch, *spatial, out_features)``.

        Raises
        ------
        ValueError
            If the images have too few axes, another number of features or no pixel.
        """
        originals, batch = _blocks.batched(images, self.kernel_size, self.in_features)
        spatial = originals.shape[1:-1]
        unit = 2 ** len(self.downs)
        widths = [(0, 0), *((0, -size % unit) for size in spatial), (0, 0)]
        features = extend(originals, widths, "nearest")
        features = self.encoders[0](features)
        skipped = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skipped.append(features)
            features = encoder(down(features))
        for up, decoder, past in zip(reversed(self.ups), reversed(self.decoders), reversed(skipped), strict=True):
            features = decoder(jnp.concatenate([past, up(features)], axis=-1))
        results = self.head(features)[:, *(slice(size) for size in spatial)]  # type: ignore[operator]
        if self.residual:
            results += originals.astype(results.dtype)
        return results.reshape(*batch, *results.shape[1:])
