"""The walk over the layers of a module whose parameters come from a model of another framework."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flax import nnx
from jax import numpy as jnp

from jaxconv._dtypes import is_complex
from jaxconv.nn._fixed import FixedFilter

M = TypeVar("M", bound=nnx.Module)

# Layers whose parameters are a scale and a bias for each feature.
NORMALISATIONS = (nnx.BatchNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.LayerNorm)


class Slot(NamedTuple):
    """A parameter of a layer: the names and shapes that it may have in the other framework, and the way from there."""

    layer: Any
    attribute: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] = ()  # its own, if none is named
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray


def check_names(source: str, given: Any) -> None:
    """Check that parameters come with their names.

    Raises
    ------
    TypeError
        If they do not.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"{source} must be a mapping from names to arrays, got {type(given).__name__}")
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"the names in {source} must be strings, got {name!r}")


def load(
    module: M,
    given: Mapping[str, Any],
    slots_of: Callable[[Any, str], Iterable[Slot] | None],
    *,
    separator: str,
    source: str,
) -> M:
    """Return a copy of a module with the given parameters, whose names are the paths of layers and their own names.

    ``slots_of`` returns the parameters that a part of the module, which stands at the place that it is told, has in the
    other framework, or None if the part is no layer there. A part whose parameters are among those of another one is
    passed over.

    Raises
    ------
    TypeError
        If ``module`` is no `flax.nnx.Module`.
    ValueError
        If a parameter is missing, of the wrong shape or left over, or complex where the module's is real, or if a part
        of the module that is no such layer has parameters of its own.
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"module must be a flax.nnx.Module, got {type(module).__name__}")
    copy = nnx.clone(module)
    found: dict[str, tuple[Any, list[Slot]]] = {}
    for path, part in nnx.iter_modules(copy):
        place = separator.join(map(str, path))
        slots = () if isinstance(part, FixedFilter) else slots_of(part, place)
        if slots is None and any(isinstance(value, nnx.Param) for value in vars(part).values()):
            norms = ", ".join(f"nnx.{norm.__name__}" for norm in NORMALISATIONS)
            raise ValueError(
                f"the {type(part).__name__} at {place or 'the top'!r} has parameters of its own, and is no layer that "
                f"can be read: those are the convolutions, nnx.Linear, {norms}"
            )
        found[place] = part, [slot for slot in slots or () if getattr(slot.layer, slot.attribute) is not None]
    inside = {id(slot.layer) for part, slots in found.values() for slot in slots if slot.layer is not part}
    found = {place: (part, slots) for place, (part, slots) in found.items() if slots and id(part) not in inside}

    left = set(given)
    for place, (_, slots) in found.items():
        for slot in slots:
            keys = [separator.join([place, name]) if place else name for name in slot.names]
            key = next((key for key in keys if key in given), None)
            if key is None:
                names = ", ".join(map(repr, sorted(given))) or "nothing"
                raise ValueError(f"found no {' or '.join(map(repr, keys))}, only {names}, in the {source}")
            variable = getattr(slot.layer, slot.attribute)
            variable[...] = jnp.asarray(_converted(np.asarray(given[key]), variable, slot, key), variable.dtype)
            left.discard(key)
    for key in sorted(left):
        place = separator.join(key.split(separator)[:-1])
        if place in found:
            part, slots = found[place]
            names = ", ".join(repr(slot.names[0]) for slot in slots)
            raise ValueError(
                f"the {type(part).__name__} at {place or 'the top'!r} has no parameter for {key!r}, only {names}: make "
                "it with one, or leave that away"
            )
    if left:
        raise ValueError(
            f"the module has no layer for {', '.join(map(repr, sorted(left)))}: remove them, or rename them by the "
            "paths of the layers"
        )
    return copy


def _converted(value: np.ndarray, variable: Any, slot: Slot, key: str) -> np.ndarray:
    """Return a parameter of the other framework in the form of the layer's."""
    layer, shape = type(slot.layer).__name__, tuple(variable.shape)
    shapes = slot.shapes or (shape,)
    if value.shape not in shapes:
        raise ValueError(
            f"{key!r} has shape {value.shape}, but this {layer} needs {' or '.join(map(str, shapes))} there, for a "
            f"{slot.attribute} of shape {shape}"
        )
    if np.iscomplexobj(value) and not is_complex(variable.dtype):
        raise ValueError(
            f"{key!r} is {value.dtype}, but the {slot.attribute} of this {layer} is {variable.dtype}: make the layer "
            f"with param_dtype={value.dtype}"
        )
    return slot.convert(value)
