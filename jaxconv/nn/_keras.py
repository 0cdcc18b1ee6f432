"""Parameters of models of Keras and TensorFlow in modules of Flax."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from jaxconv.nn._depthwise import SeparableConv
from jaxconv.nn._load import NORMALISATIONS, Slot, check_names, load

M = TypeVar("M", bound=nnx.Module)


def from_keras(weights: Mapping[str, Any], module: M) -> M:
    """Return a copy of a module with the parameters of a Keras model of the same structure.

    A layer finds its parameters under its path in the module: ``self.layers[0]`` reads ``"layers/0/kernel"`` and
    ``"layers/0/bias"``. Rename keys beforehand where Keras' own paths differ. The layers are the convolutions of
    jaxconv and of Flax, transposed ones included, in either convention, `SeparableConv`, `flax.nnx.Linear`,
    `flax.nnx.BatchNorm`, `flax.nnx.GroupNorm`, `flax.nnx.InstanceNorm` and `flax.nnx.LayerNorm`. A layer that the
    module holds in several places is read at the first.

    Parameters
    ----------
    weights
        From paths to arrays, with the names that Keras gives: ``{w.path: w.numpy() for w in model.weights}`` in
        Keras 3, with ``w.name`` in `tf.keras` (whose ``":0"`` at the end is ignored).
    module
        A `flax.nnx.Module`, which stays as it is.

    Returns
    -------
    flax.nnx.Module
        A module of the same class. Parameters keep the dtypes that they have in ``module``.

    Raises
    ------
    TypeError
        If ``module`` is no `flax.nnx.Module`, or ``weights`` no mapping from strings.
    ValueError
        If a parameter is missing, of the wrong shape or left over, or complex where the module's is real, or if a part
        of the module that is none of these layers has parameters of its own.

    Notes
    -----
    Kernels ``(*kernel_size, in / groups, out)`` stay as they are. Depthwise ones, ``(*kernel_size, channels,
    multiplier)``, become ``(*kernel_size, 1, channels * multiplier)``. Those of transposed layers, ``(*kernel_size,
    out, in)``, stay as they are where the layer was made with ``transpose_kernel=True``; otherwise their last two axes
    are exchanged and their spatial axes are reversed. Under ``convention="convolution"`` spatial axes are reversed once
    more.

    Geometry is the caller's: ``padding="same"`` and ``"valid"`` are "SAME" and "VALID" of `Conv` and of
    `ConvTranspose`, with strides too, and ``"causal"`` is "CAUSAL". Keras' normalisations add 1e-3 to the variance by
    default, and Flax's 1e-5 or 1e-6: set ``epsilon``.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> weights = {"kernel": np.arange(12.0).reshape(3, 2, 2), "bias": np.zeros(4)}  # of DepthwiseConv1D(3, 2 each)
    >>> layer = nn.from_keras(weights, nn.DepthwiseConv(2, 3, depth_multiplier=2, rngs=nnx.Rngs(0)))
    >>> layer.kernel[:, 0]
    Array([[ 0.,  1.,  2.,  3.],
           [ 4.,  5.,  6.,  7.],
           [ 8.,  9., 10., 11.]], dtype=float32)
    """
    check_names("weights", weights)
    given = {name.removesuffix(":0"): value for name, value in weights.items()}
    return load(module, given, _slots, separator="/", source="weights")


def _slots(part: Any, place: str) -> list[Slot] | None:
    """Return the parameters that a layer of Keras holds, None for what is no layer there."""
    if isinstance(part, SeparableConv):  # one layer in Keras
        return [
            _kernel(part.depthwise, place, "depthwise_kernel"),
            _kernel(part.pointwise, place, "pointwise_kernel"),
            Slot(part.pointwise, "bias", ("bias",)),
        ]
    if isinstance(part, nnx.Conv | nnx.ConvTranspose):
        names = ("kernel", "depthwise_kernel") if getattr(part, "feature_group_count", 1) > 1 else ("kernel",)
        return [_kernel(part, place, *names), Slot(part, "bias", ("bias",))]
    if isinstance(part, nnx.Linear):
        return [Slot(part, "kernel", ("kernel",)), Slot(part, "bias", ("bias",))]
    if isinstance(part, NORMALISATIONS):
        slots = [Slot(part, "scale", ("gamma",)), Slot(part, "bias", ("beta",))]
        if isinstance(part, nnx.BatchNorm):
            slots += [Slot(part, "mean", ("moving_mean",)), Slot(part, "var", ("moving_variance",))]
        return slots
    return None


def _kernel(layer: Any, place: str, *names: str) -> Slot:
    shape = tuple(layer.kernel.shape)
    *space, first, second = shape
    groups = getattr(layer, "feature_group_count", 1)
    transposed = isinstance(layer, nnx.ConvTranspose)
    if transposed and groups > 1:
        raise ValueError(
            f"the {type(layer).__name__} at {place or 'the top'!r} is a transposed layer with {groups} groups: Keras "
            "has no such layer"
        )
    exchanged = transposed and not layer.transpose_kernel
    backwards = exchanged != (getattr(layer, "convention", "correlation") == "convolution")

    def convert(value: np.ndarray) -> np.ndarray:
        value = value.swapaxes(-1, -2) if exchanged else value.reshape(shape)
        return np.flip(value, tuple(range(len(space)))) if backwards else value

    shapes = ((*space, second, first) if exchanged else shape,)
    if not transposed and 1 < groups == layer.in_features:  # depthwise
        shapes += ((*space, groups, second // groups),)
    return Slot(layer, "kernel", names, shapes, convert)
