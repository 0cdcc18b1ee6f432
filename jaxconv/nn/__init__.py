"""Layers and models for Flax (``flax.nnx``) in either convention; needs ``pip install "jaxconv[flax]"``.

`Conv` is `flax.nnx.Conv` with two more arguments. ``convention="convolution"`` makes it a convolution in the
mathematical sense, whose kernel is read backwards; the default, ``"correlation"``, is what every deep-learning
framework calls a convolution. ``method`` names the algorithm. Parameters have the names, shapes and initial values
that they have in Flax, so that checkpoints move between the two::

    from flax import nnx
    from jaxconv import nn

    class Model(nnx.Module):
        def __init__(self, rngs):
            # was nnx.Conv(3, 16, (3, 3), rngs=rngs)
            self.conv = nn.Conv(3, 16, (3, 3), convention="convolution", rngs=rngs)

`ConvTranspose` is `flax.nnx.ConvTranspose` with the same two arguments, groups and output padding. `DepthwiseConv`
filters each feature by itself, `SeparableConv` then mixes them, and `FixedFilter` applies a given kernel that is not
trained. `LongConv` is a causal convolution as long as the sequence, whose filter is a parameter or a function of the
lag such as `HyenaFilter`.

Models built of these layers: `CNN`, `ResNet` and `MobileNet` classify images, `UNet` maps images to images. All run
under every transformation of Flax and JAX (`nnx.jit`, `nnx.grad`, `nnx.vmap` over models, `jax.lax.scan` over training
steps), and inside `scan` at full speed, where `jax.lax`'s own gradients are slow on CPUs.

The convention does not restrict what a network can learn: reversing every kernel turns a network of one convention
into a network of the other that computes the same function, and gradient descent, started from there, goes through
reversed kernels all the way.
"""

try:
    import flax.nnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError('jaxconv.nn needs Flax: pip install "jaxconv[flax]"', name=error.name) from error

from jaxconv.nn._classifiers import MobileNet, ResNet
from jaxconv.nn._cnn import CNN
from jaxconv.nn._conv import Conv
from jaxconv.nn._convert import optimizer_with_convention, with_convention
from jaxconv.nn._depthwise import DepthwiseConv, SeparableConv
from jaxconv.nn._fixed import FixedFilter
from jaxconv.nn._keras import from_keras
from jaxconv.nn._long import HyenaFilter, LongConv
from jaxconv.nn._torch import from_torch
from jaxconv.nn._transpose import ConvTranspose
from jaxconv.nn._unet import UNet

__all__ = [
    "CNN",
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "FixedFilter",
    "HyenaFilter",
    "LongConv",
    "MobileNet",
    "ResNet",
    "SeparableConv",
    "UNet",
    "from_keras",
    "from_torch",
    "optimizer_with_convention",
    "with_convention",
]
