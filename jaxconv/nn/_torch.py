"""Parameters of torch's models in modules of Flax."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from jaxconv.nn._load import NORMALISATIONS, Slot, check_names, load

M = TypeVar("M", bound=nnx.Module)

# Of a layer's state in torch: counters that no layer of Flax has.
_IGNORED = "num_batches_tracked"


def from_torch(state_dict: Mapping[str, Any], module: M) -> M:
    """Return a copy of a module with the parameters of a torch model of the same structure.

    A layer finds its parameters under its path in the module, which must be its name in torch: ``self.layers[0]``
    reads ``"layers.0.weight"`` and ``"layers.0.bias"``. Rename keys beforehand where the two models differ. The layers
    are the convolutions of jaxconv and of Flax, transposed ones included, in either convention, `flax.nnx.Linear`,
    `flax.nnx.BatchNorm`, `flax.nnx.GroupNorm`, `flax.nnx.InstanceNorm` and `flax.nnx.LayerNorm`. A layer that the
    module holds in several places is read at the first.

    Parameters
    ----------
    state_dict
        What ``model.state_dict()`` returns in torch: from names to tensors (on the CPU) or NumPy arrays.
    module
        A `flax.nnx.Module`, which stays as it is.

    Returns
    -------
    flax.nnx.Module
        A module of the same class. Parameters keep the dtypes that they have in ``module``.

    Raises
    ------
    TypeError
        If ``module`` is no `flax.nnx.Module`, or ``state_dict`` no mapping from strings.
    ValueError
        If a parameter is missing, of the wrong shape or left over, or complex where the module's is real, or if a part
        of the module that is none of these layers has parameters of its own.

    Notes
    -----
    Kernels ``(out, in / groups, *kernel_size)`` become ``(*kernel_size, in / groups, out)``, and those of transposed
    layers, ``(in, out / groups, *kernel_size)``, become ``(*kernel_size, out / groups, in)`` if the layer was made with
    ``transpose_kernel=True``; otherwise ``(*kernel_size, in / groups, out)``, reversed along the spatial axes. Under
    ``convention="convolution"`` they are reversed once more.

    Geometry is the caller's: torch's ``padding=p`` is the same ``padding=p`` in `Conv`, but for its transposed layers
    it is ``padding=d * (k - 1) - p`` on each axis of `ConvTranspose`, with k taps and dilation d. ``output_padding`` is
    the same.

    So are the settings of normalisations, which no state_dict tells: ``num_groups`` must be torch's, and torch adds
    1e-5 to every variance, where `flax.nnx.GroupNorm`, `flax.nnx.InstanceNorm` and `flax.nnx.LayerNorm` add
    ``epsilon=1e-6`` by default. torch's ``momentum=m`` of a `flax.nnx.BatchNorm` is ``momentum=1 - m``. Features stand
    last in Flax, so that a LayerNorm over them corresponds to torch's where the model puts them last there too.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from jaxconv import nn
    >>> state_dict = {"weight": np.arange(6.0).reshape(1, 2, 3), "bias": np.ones(1)}  # of torch.nn.Conv1d(2, 1, 3)
    >>> layer = nn.from_torch(state_dict, nn.Conv(2, 1, 3, padding="VALID", rngs=nnx.Rngs(0)))
    >>> layer.kernel[..., 0]
    Array([[0., 3.],
           [1., 4.],
           [2., 5.]], dtype=float32)
    """
    check_names("state_dict", state_dict)
    # NumPy has no bfloat16, of which float32 holds every value.
    given = {
        name: value.float() if str(getattr(value, "dtype", None)) == "torch.bfloat16" else value
        for name, value in state_dict.items()
        if name.split(".")[-1] != _IGNORED
    }
    return load(module, given, _slots, separator=".", source="state_dict")


def _slots(part: Any, _: str) -> list[Slot] | None:
    """Return the parameters that a layer of torch holds, None for what is no layer there."""
    if isinstance(part, nnx.Conv | nnx.ConvTranspose):
        weight = _kernel(part)
    elif isinstance(part, nnx.Linear):
        weight = Slot(part, "kernel", ("weight",), (part.kernel.shape[::-1],), np.transpose)
    elif isinstance(part, NORMALISATIONS):
        weight = Slot(part, "scale", ("weight",))
    else:
        return None
    slots = [weight, Slot(part, "bias", ("bias",))]
    if isinstance(part, nnx.BatchNorm):
        slots += [Slot(part, "mean", ("running_mean",)), Slot(part, "var", ("running_var",))]
    return slots


def _kernel(layer: Any) -> Slot:
    *space, first, second = layer.kernel.shape
    forward = isinstance(layer, nnx.Conv) or layer.transpose_kernel
    groups = getattr(layer, "feature_group_count", 1)
    backwards = forward == (getattr(layer, "convention", "correlation") == "convolution")

    def convert(value: np.ndarray) -> np.ndarray:
        # Of a transposed layer, the groups stand along the first axis in torch, along the last one in Flax.
        value = value.swapaxes(0, 1) if forward else np.concatenate(np.split(value, groups), 1)
        value = np.moveaxis(value, (0, 1), (-2, -1))
        return np.flip(value, tuple(range(len(space)))) if backwards else value

    shape = (second, first, *space) if forward else (first * groups, second // groups, *space)
    return Slot(layer, "kernel", ("weight",), (shape,), convert)
