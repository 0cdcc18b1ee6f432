"""Classifiers of images in stages, each of half the resolution of the one before."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxconv._spec import Convention, Method
from jaxconv.nn import _arguments, _blocks
from jaxconv.nn._blocks import ConvNorm, group_norm
from jaxconv.nn._conv import Conv, changed_choices


class _Residual(nnx.Module):
    """Two convolutions whose result is added to the features, which a 1x1 convolution brings to the same shape."""

    def __init__(
        self,
        conv: Callable[..., nnx.Module],
        before: int,
        after: int,
        kernel: tuple[int, ...],
        stride: int,
        **options: Any,
    ):
        self.first = ConvNorm(conv, before, after, kernel, stride, **options)
        self.second = ConvNorm(conv, after, after, kernel, **options)
        changes = (before, stride) != (after, 1)
        self.shortcut = ConvNorm(conv, before, after, (1,) * len(kernel), stride, **options) if changes else None

    def __call__(self, features: jax.Array) -> jax.Array:
        changes = self.second(nnx.relu(self.first(features)))
        return nnx.relu(changes + (features if self.shortcut is None else self.shortcut(features)))


class _Separable(nnx.Module):
    """A depthwise convolution, then a 1x1 convolution that mixes the features."""

    def __init__(
        self,
        conv: Callable[..., nnx.Module],
        before: int,
        after: int,
        kernel: tuple[int, ...],
        stride: int,
        **options: Any,
    ):
        self.depthwise = ConvNorm(conv, before, before, kernel, stride, feature_group_count=before, **options)
        self.pointwise = ConvNorm(conv, before, after, (1,) * len(kernel), **options)

    def __call__(self, features: jax.Array) -> jax.Array:
        return nnx.relu(self.pointwise(nnx.relu(self.depthwise(features))))


class _StagedClassifier(nnx.Module):
    """A convolution, stages of blocks, the mean over all pixels and a dense layer."""

    block: ClassVar[Callable[..., nnx.Module]]

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int | Sequence[int] = 1,
        kernel_size: Sequence[int] = (3, 3),
        convention: Convention = "correlation",
        method: Method = "direct",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        conv: Callable[..., nnx.Module] = Conv,
        norm: Callable[..., nnx.Module] | None = group_norm,
        rngs: nnx.Rngs,
    ):
        self.in_features = _arguments.positive("in_features", in_features)
        self.kernel_size = _arguments.positives("kernel_size", kernel_size)
        num_classes = _arguments.positive("num_classes", num_classes)
        widths = _arguments.positives("widths", widths, "stage, such as (16, 32, 64)")
        if isinstance(blocks, Sequence):
            if len(blocks) != len(widths):
                raise ValueError(
                    f"blocks={tuple(blocks)} has {len(blocks)} entries, but there are {len(widths)} stages "
                    f"(widths={widths}): give one number for each, or one for all"
                )
            blocks = _arguments.positives("blocks", blocks)
        else:
            blocks = (_arguments.positive("blocks", blocks),) * len(widths)
        common: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        _arguments.check_options(conv=conv, norm=norm, **common)
        options: dict[str, Any] = common | {"norm": norm} | changed_choices(convention, method)
        self.stem = ConvNorm(conv, self.in_features, widths[0], self.kernel_size, **options)
        self.blocks = nnx.List([])
        before = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                self.blocks.append(type(self).block(conv, before, width, self.kernel_size, stride, **options))
                before = width
        self.head = nnx.Linear(widths[-1], num_classes, **common)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits of images.

        Parameters
        ----------
        images
            Shape ``(*batch, *spatial, in_features)``, with any number of batch axes or none, and of any size.

        Returns
        -------
        jax.Array
            Shape ``(*batch, num_classes)``.

        Raises
        ------
        ValueError
            If the images have too few axes, another number of features or no pixel.
        """
        features, batch = _blocks.batched(images, self.kernel_size, self.in_features)
        features = nnx.relu(self.stem(features))
        for block in self.blocks:
            features = block(features)
        logits = self.head(features.mean(axis=range(1, features.ndim - 1)))
        return logits.reshape(*batch, logits.shape[-1])


class ResNet(_StagedClassifier):
    """Residual network that classifies images: stages of blocks of two convolutions and a connection past both.

    A first convolution at full resolution; then a stage for each of ``widths``, of which each but the first halves the
    resolution (rounded up) with a stride of 2; the mean over all pixels; a dense layer. A block adds to its input,
    or to a 1x1 convolution of it where the shape changes, what its two convolutions make of it. Each convolution is
    followed by a normalisation, by default by `flax.nnx.GroupNorm` over groups of 8 features (of all, where 8 does not
    divide their number), which treats each image by itself and keeps no statistics, so that training is a plain
    function of the parameters, also under `flax.nnx.vmap` over models and inside `jax.lax.scan`.

    With ``widths=(16, 32, 64)`` and ``blocks=3`` it is the ResNet-20 for small images of He, Zhang, Ren and Sun, "Deep
    residual learning for image recognition" (2016), but for the normalisation and the 1x1 convolutions; with
    ``widths=(64, 128, 256, 512)`` and ``blocks=2`` it has the stages of ResNet-18.

    Parameters
    ----------
    in_features
        Number of channels of the images.
    num_classes
        Number of classes.
    widths
        Number of features of each stage.
    blocks
        Number of blocks of each stage, or one for all.
    kernel_size
        Shape of the filters, one integer for each spatial axis.
    convention
        ``"correlation"`` or ``"convolution"``, in every layer.
    method
        The algorithm of every layer, as for `jaxconv.nn.Conv`: a name or a triple.
    dtype
        dtype of the computation; by default that of images and parameters together.
    param_dtype
        dtype of the parameters.
    conv
        What makes a convolution: `jaxconv.nn.Conv`, or for a network of plain Flax `flax.nnx.Conv`, which draws the
        same initial parameters. It is given ``convention`` and ``method`` where they are not the defaults.
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
        If a size is not positive, or ``blocks`` does not fit ``widths``; when called, if the images have too few
        axes, another number of features or no pixel.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.ResNet(3, 10, widths=(8, 16), blocks=2, convention="convolution", rngs=nnx.Rngs(0))
    >>> model(jnp.ones((5, 9, 12, 3))).shape  # logits
    (5, 10)
    >>> len(model.blocks), model.blocks[2].first.conv.kernel.shape
    (4, (3, 3, 8, 16))
    """

    block = _Residual


class MobileNet(_StagedClassifier):
    """Network of depthwise separable convolutions that classifies images.

    As `ResNet`, with other blocks: a depthwise convolution, which filters each feature by itself, then a 1x1
    convolution, which mixes them (Howard et al., "MobileNets", 2017), each followed by the normalisation and a
    rectifier. Nothing is passed around a block. The first convolution has a stride of 1, for small images.

    Parameters
    ----------
    in_features
        Number of channels of the images.
    num_classes
        Number of classes.
    widths
        Number of features of each stage.
    blocks
        Number of blocks of each stage, or one for all.
    kernel_size
        Shape of the first and of the depthwise filters, one integer for each spatial axis.
    convention
        ``"correlation"`` or ``"convolution"``, in every layer.
    method
        The algorithm of every layer, as for `jaxconv.nn.Conv`: a name or a triple.
    dtype
        dtype of the computation; by default that of images and parameters together.
    param_dtype
        dtype of the parameters.
    conv
        What makes a convolution: `jaxconv.nn.Conv`, or for a network of plain Flax `flax.nnx.Conv`, which draws the
        same initial parameters. It is given ``convention`` and ``method`` where they are not the defaults.
    norm
        What makes the normalisation behind a convolution, such as `flax.nnx.LayerNorm`, `flax.nnx.BatchNorm` (which
        keeps statistics) or ``functools.partial(flax.nnx.GroupNorm, num_groups=4)``; it is called as
        ``norm(num_features, dtype=..., param_dtype=..., rngs=...)``. With None the convolutions have a bias in place
        of one.
    rngs
        Random keys for the initial parameters.

    Raises
    ------
    TypeError, ValueError
        As `ResNet`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> model = nn.MobileNet(3, 10, widths=(8, 16), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((5, 9, 12, 3))).shape  # logits
    (5, 10)
    >>> model.blocks[1].depthwise.conv.kernel.shape, model.blocks[1].pointwise.conv.kernel.shape
    ((3, 3, 1, 8), (1, 1, 8, 16))
    """

    block = _Separable
