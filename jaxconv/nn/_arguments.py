"""What layers may be given, checked when they are made: errors name the argument as its author wrote it."""

import operator
from collections.abc import Sequence
from typing import TypeAlias

from jaxconv._boundary import Boundary, check_boundary

Sizes: TypeAlias = int | Sequence[int] | None
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]

# What Flax turns into an extended input, and what `jax.lax` turns into zeros (in lower case too).
EXTENDED_PADDINGS = ("CIRCULAR", "REFLECT", "CAUSAL")
LAX_PADDINGS = ("SAME", "SAME_LOWER", "VALID")
TRANSPOSED_PADDINGS = ("SAME", "VALID", "CIRCULAR")


def integer(name: str, value: object) -> int:
    """Return an integer, of whatever integer type it is.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")


def positive(name: str, value: object) -> int:
    """Return a positive integer.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is not positive.
    """
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


def positives(name: str, values: object) -> tuple[int, ...]:
    """Return a sequence of positive integers as a tuple.

    Raises
    ------
    TypeError
        If it is no sequence of integers.
    ValueError
        If one is not positive.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of integers, got {values!r}")
    return tuple(positive(f"{name}[{i}]", value) for i, value in enumerate(values))


def sizes(name: str, values: Sizes, ndim: int) -> int | tuple[int, ...]:
    """Return one positive integer for all spatial axes (None means 1), or one for each.

    Raises
    ------
    TypeError
        If one is no integer.
    ValueError
        If one is not positive, or there are not as many as spatial axes.
    """
    if values is None:
        return 1
    if not isinstance(values, Sequence):
        return positive(name, values)
    _check_length(name, values, ndim)
    return positives(name, values)


def padding(value: Padding, ndim: int) -> str | tuple[tuple[int, int], ...]:
    """Return the name of a padding, or one pair of integers for each spatial axis.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If it names no padding, or is not as long as there are spatial axes.
    """
    if isinstance(value, str):
        if value in EXTENDED_PADDINGS or value.upper() in LAX_PADDINGS:
            if value == "CAUSAL" and ndim != 1:
                raise ValueError(
                    f"padding='CAUSAL' needs one spatial axis, but kernel_size has {ndim}: pad each axis in numbers, "
                    "for example padding=((2, 0), (1, 1)) for a 3x3 kernel that is causal along the first"
                )
            return value
        names = ", ".join(map(repr, LAX_PADDINGS + EXTENDED_PADDINGS))
        raise ValueError(
            f"unknown padding {value!r}: choose one of {names}, an integer, or for each spatial axis an integer or a "
            "pair (low, high)"
        )
    if not isinstance(value, Sequence):
        number = integer("padding", value)
        return ((number, number),) * ndim
    _check_length("padding", value, ndim)
    return tuple(_pair(f"padding[{axis}]", pair) for axis, pair in enumerate(value))


def transposed_padding(value: Padding, ndim: int) -> str | tuple[tuple[int, int], ...]:
    """Return the name of a padding of transposed convolutions, or one pair of integers for each spatial axis.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If it names no such padding, or is not as long as there are spatial axes.
    """
    if isinstance(value, str) and value not in TRANSPOSED_PADDINGS:
        names = ", ".join(map(repr, TRANSPOSED_PADDINGS))
        raise ValueError(
            f"padding {value!r} is unknown to transposed convolutions: choose one of {names}, an integer, or for each "
            "spatial axis an integer or a pair (low, high)"
        )
    return padding(value, ndim)


def each(value: Sizes, ndim: int) -> tuple[int, ...]:
    """Return one integer for each spatial axis, of an integer for all (None means 1) or a sequence."""
    return tuple(value) if isinstance(value, Sequence) else (1 if value is None else value,) * ndim


def boundary(value: object, padding: object, ndim: int) -> tuple[Boundary, ...] | None:
    """Return the boundary of each spatial axis, or None.

    Raises
    ------
    TypeError
        If it is neither a name nor a sequence of names.
    ValueError
        If a name is unknown, there are not as many as spatial axes, or the padding is not "SAME" or "SAME_LOWER".
    """
    if value is None:
        return None
    names = check_boundary(value, ndim)
    if not isinstance(padding, str) or padding.upper() not in ("SAME", "SAME_LOWER"):
        raise ValueError(
            f"boundary={value!r} contradicts padding={padding!r}: a boundary says what stands in place of the zeros of "
            "padding='SAME' or 'SAME_LOWER', so leave one of the two away"
        )
    return names


def check_inputs(shape: tuple[int, ...], kernel_size: tuple[int, ...], in_features: int) -> None:
    """Check that inputs are ``(*batch, *spatial, in_features)``.

    Raises
    ------
    ValueError
        If they have too few axes or another number of features.
    """
    ndim = len(kernel_size)
    if len(shape) < ndim + 1:
        raise ValueError(
            f"a layer with kernel_size={kernel_size} needs an input of at least {ndim + 1} axes, (*batch, "
            f"*spatial, features), got shape {shape}"
        )
    if shape[-1] != in_features:
        raise ValueError(
            f"the input's last axis has {shape[-1]} features (shape {shape}), but the layer was made with "
            f"in_features={in_features}: the features come last"
        )


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair (low, high), got {value!r}")
        return integer(name, value[0]), integer(name, value[1])
    number = integer(name, value)
    return number, number


def _check_length(name: str, values: Sequence, ndim: int) -> None:
    if len(values) != ndim:
        raise ValueError(
            f"{name} must have one entry per spatial axis: got {len(values)} ({tuple(values)}), but kernel_size has "
            f"{ndim}"
        )
