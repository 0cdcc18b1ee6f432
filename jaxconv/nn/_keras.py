"""Parameters of models of Keras and TensorFlow in modules of Flax."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flax import nnx
from jax import numpy as jnp

from jaxconv._dtypes import is_complex
from jaxconv.nn._depthwise import SeparableConv
from jaxconv.nn._fixed import FixedFilter

M = TypeVar("M", bound=nnx.Module)


def from_keras(weights: Mapping[str, Any], module: M) -> M:
    """Return a copy of a module with the parameters of a Keras model of the same structure.

    A layer finds its parameters under its path in the module: ``self.layers[0]`` reads ``"layers/0/kernel"`` and
    ``"layers/0/bias"``. Rename keys beforehand where Keras' own paths differ. The layers are the convolutions of
    jaxconv and of Flax, transposed ones included, in either convention, `SeparableConv`, `flax.nnx.Linear`,
    `flax.nnx.BatchNorm`, `flax.nnx.LayerNorm` and `flax.nnx.GroupNorm`. A layer that the module holds in several
    places is read at the first.

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
        If ``module`` is no `flax.nnx.Module`.
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
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be a flax.nnx.Module, got {type(module).__name__}")
    copy = nnx.clone(module)
    given = {name.removesuffix(":0"): value for name, value in weights.items()}
    left, parts = set(given), list(nnx.iter_modules(copy))
    separable = [part for _, part in parts if isinstance(part, SeparableConv)]  # one layer in Keras
    inside = {id(layer) for part in separable for layer in (part.depthwise, part.pointwise)}
    for path, part in parts:
        for slot in _slots(part, path) if id(part) not in inside else ():
            keys = ["/".join(map(str, (*path, name))) for name in slot.names]
            key = next((key for key in keys if key in given), None)
            if key is None:
                names = ", ".join(map(repr, sorted(given)))
                raise ValueError(f"the weights have no {' or '.join(map(repr, keys))}, only {names}")
            value, variable = np.asarray(given[key]), getattr(slot.layer, slot.attribute)
            variable[...] = jnp.asarray(_converted(value, variable, slot, key), variable.dtype)
            left.discard(key)
    if left:
        raise ValueError(
            f"the module has no layer for {', '.join(map(repr, sorted(left)))}: remove them from the weights, or "
            "rename them by the paths of the layers"
        )
    return copy


class _Slot(NamedTuple):
    """A parameter of a layer, and the names that it may have in Keras."""

    layer: Any
    attribute: str
    names: tuple[str, ...]


def _slots(part: Any, path: tuple[Any, ...]) -> list[_Slot]:
    """Return the parameters that a layer of Keras holds."""
    if isinstance(part, FixedFilter):
        return []
    if isinstance(part, SeparableConv):
        slots = [
            _Slot(part.depthwise, "kernel", ("depthwise_kernel",)),
            _Slot(part.pointwise, "kernel", ("pointwise_kernel",)),
            _Slot(part.pointwise, "bias", ("bias",)),
        ]
    elif isinstance(part, nnx.Conv | nnx.ConvTranspose | nnx.Linear):
        kernel = ("kernel", "depthwise_kernel") if getattr(part, "feature_group_count", 1) > 1 else ("kernel",)
        slots = [_Slot(part, "kernel", kernel), _Slot(part, "bias", ("bias",))]
    elif isinstance(part, nnx.BatchNorm | nnx.LayerNorm | nnx.GroupNorm):
        slots = [_Slot(part, "scale", ("gamma",)), _Slot(part, "bias", ("beta",))]
        if isinstance(part, nnx.BatchNorm):
            slots += [_Slot(part, "mean", ("moving_mean",)), _Slot(part, "var", ("moving_variance",))]
    elif any(isinstance(value, nnx.Param) for value in vars(part).values()):
        place = "/".join(map(str, path)) or "the top"
        raise ValueError(
            f"the {type(part).__name__} at {place!r} has parameters of its own, and is no layer that can be read: "
            "those are the convolutions, nnx.Linear, nnx.BatchNorm, nnx.LayerNorm and nnx.GroupNorm"
        )
    else:
        return []
    return [slot for slot in slots if getattr(slot.layer, slot.attribute) is not None]


def _converted(value: np.ndarray, variable: Any, slot: _Slot, key: str) -> np.ndarray:
    """Return a parameter of Keras in the form of the layer's."""
    layer, shape = slot.layer, tuple(variable.shape)
    shapes, backwards, ndim = [shape], False, 0
    if slot.attribute == "kernel" and isinstance(layer, nnx.Conv | nnx.ConvTranspose):
        ndim = len(layer.kernel_size)
        backwards = getattr(layer, "convention", "correlation") == "convolution"
        groups = getattr(layer, "feature_group_count", 1)
        if isinstance(layer, nnx.ConvTranspose):
            if groups > 1:
                raise ValueError(f"{key!r} is of a transposed layer with {groups} groups: Keras has no such layer")
            if not layer.transpose_kernel:
                shapes, backwards = [(*shape[:-2], shape[-1], shape[-2])], not backwards
        elif groups == layer.in_features:
            shapes.append((*shape[:-2], groups, shape[-1] // groups))
    if value.shape not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(
            f"{key!r} has shape {value.shape}, but this {type(layer).__name__} needs {expected} there, for a "
            f"{slot.attribute} of shape {shape}"
        )
    if np.iscomplexobj(value) and not is_complex(variable.dtype):
        raise ValueError(
            f"{key!r} is {value.dtype}, but the {slot.attribute} of this {type(layer).__name__} is {variable.dtype}: "
            f"make the layer with param_dtype={value.dtype}"
        )
    if isinstance(layer, nnx.ConvTranspose) and ndim and not layer.transpose_kernel:
        value = value.swapaxes(-1, -2)
    value = value.reshape(shape)
    return np.flip(value, tuple(range(ndim))) if backwards else value
