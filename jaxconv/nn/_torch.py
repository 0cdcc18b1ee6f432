"""Parameters of torch's models in modules of Flax."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flax import nnx
from jax import numpy as jnp

from jaxconv._dtypes import is_complex
from jaxconv.nn._fixed import FixedFilter

M = TypeVar("M", bound=nnx.Module)

# Of a layer's state in torch: counters that no layer of Flax has.
_IGNORED = "num_batches_tracked"


def from_torch(state_dict: Mapping[str, Any], module: M) -> M:
    """Return a copy of a module with the parameters of a torch model of the same structure.

    A layer finds its parameters under its path in the module, which must be its name in torch: ``self.layers[0]``
    reads ``"layers.0.weight"`` and ``"layers.0.bias"``. Rename keys beforehand where the two models differ. The layers
    are the convolutions of jaxconv and of Flax, transposed ones included, in either convention, `flax.nnx.Linear` and
    `flax.nnx.BatchNorm`. A layer that the module holds in several places is read at the first.

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
        If ``module`` is no `flax.nnx.Module`.
    ValueError
        If a parameter is missing, of the wrong shape or left over, or if a part of the module that is none of these
        layers has parameters of its own.

    Notes
    -----
    Kernels ``(out, in / groups, *kernel_size)`` become ``(*kernel_size, in / groups, out)``, and those of transposed
    layers, ``(in, out / groups, *kernel_size)``, become ``(*kernel_size, out / groups, in)`` if the layer was made with
    ``transpose_kernel=True``; otherwise ``(*kernel_size, in / groups, out)``, reversed along the spatial axes. Under
    ``convention="convolution"`` they are reversed once more.

    Geometry is the caller's: torch's ``padding=p`` is the same ``padding=p`` in `Conv`, but for its transposed layers
    it is ``padding=d * (k - 1) - p`` on each axis of `ConvTranspose`, with k taps and dilation d. ``output_padding`` is
    the same.

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
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be a flax.nnx.Module, got {type(module).__name__}")
    copy = nnx.clone(module)
    left = {name for name in state_dict if name.split(".")[-1] != _IGNORED}
    for path, part in nnx.iter_modules(copy):
        for name, rule in _rules(part, path).items():
            key = ".".join(map(str, (*path, name)))
            if key not in state_dict:
                raise ValueError(f"the state_dict has no {key!r}, only {', '.join(map(repr, sorted(state_dict)))}")
            value, variable = np.asarray(state_dict[key]), getattr(part, rule.attribute)
            shape = rule.shape(variable.shape)
            if value.shape != shape:
                raise ValueError(
                    f"{key!r} has shape {value.shape}, but this {type(part).__name__} needs {shape} there, for a "
                    f"{rule.attribute} of shape {tuple(variable.shape)}"
                )
            if np.iscomplexobj(value) and not is_complex(variable.dtype):
                raise ValueError(
                    f"{key!r} is {value.dtype}, but the {rule.attribute} of this {type(part).__name__} is "
                    f"{variable.dtype}: make the layer with param_dtype={value.dtype}"
                )
            # The groups stand along the first axis in torch, along the last one in Flax.
            value = np.concatenate(np.split(value, rule.groups), 1) if rule.groups > 1 else value
            value = np.flip(value.transpose(rule.axes), rule.reversed_axes)
            variable[...] = jnp.asarray(value, variable.dtype)
            left.discard(key)
    if left:
        raise ValueError(
            f"the module has no layer for {', '.join(map(repr, sorted(left)))}: remove them from the state_dict, or "
            "rename them by the paths of the layers"
        )
    return copy


class _Rule(NamedTuple):
    """Where a parameter goes: torch's axes in the order of the attribute's, some of which are then reversed.

    Groups move from torch's first axis, of which each has a part, to its second one beforehand.
    """

    attribute: str
    axes: tuple[int, ...]
    reversed_axes: tuple[int, ...] = ()
    groups: int = 1

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in torch of a parameter of this shape."""
        there = [shape[self.axes.index(axis)] for axis in range(len(shape))]
        if self.groups > 1:
            there[:2] = there[0] * self.groups, there[1] // self.groups
        return tuple(there)


def _rules(part: nnx.Module, path: tuple[Any, ...]) -> dict[str, _Rule]:
    """Return the rule of each parameter that a module itself holds, by its name in torch."""
    if isinstance(part, FixedFilter):
        return {}
    if isinstance(part, nnx.Conv | nnx.ConvTranspose):
        ndim = len(part.kernel_size)
        space = tuple(range(2, ndim + 2))
        forward = isinstance(part, nnx.Conv) or part.transpose_kernel
        backwards = getattr(part, "convention", "correlation") == "convolution"
        order = (*space, 1, 0) if forward else (*space, 0, 1)
        groups = 1 if forward else getattr(part, "feature_group_count", 1)
        weight = _Rule("kernel", order, tuple(range(ndim)) if forward == backwards else (), groups)
    elif isinstance(part, nnx.Linear):
        weight = _Rule("kernel", (1, 0))
    elif isinstance(part, nnx.BatchNorm):
        weight = _Rule("scale", (0,))
    elif any(isinstance(value, nnx.Param) for value in vars(part).values()):
        place = ".".join(map(str, path)) or "the top"
        raise ValueError(
            f"the {type(part).__name__} at {place!r} has parameters of its own, and is no layer that can be read: "
            "those are the convolutions, nnx.Linear and nnx.BatchNorm"
        )
    else:
        return {}
    rules = {"weight": weight, "bias": _Rule("bias", (0,))}
    if isinstance(part, nnx.BatchNorm):
        rules |= {"running_mean": _Rule("mean", (0,)), "running_var": _Rule("var", (0,))}
    return {name: rule for name, rule in rules.items() if getattr(part, rule.attribute) is not None}
