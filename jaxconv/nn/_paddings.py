"""The padding and the boundary that layers may be given, checked as `jaxconv.nn._arguments` checks the rest."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxconv._boundary import Boundary, check_boundary
from jaxconv._text import perhaps
from jaxconv.nn._arguments import Sizes, check_length, each, integer, listed, number

Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]

# What Flax turns into an extended input, and what `jax.lax` turns into zeros (in lower case too).
EXTENDED_PADDINGS = ("CIRCULAR", "REFLECT", "CAUSAL")
LAX_PADDINGS = ("SAME", "SAME_LOWER", "VALID")
TRANSPOSED_PADDINGS = ("SAME", "VALID", "CIRCULAR")
# What Flax extends periodically or by mirroring, and how to say so with a boundary.
_BOUNDARY_OF_PADDING = {"CIRCULAR": "wrap", "REFLECT": "mirror"}
# Boundaries that read no later sample in front of the first.
_CAUSAL_BOUNDARIES = ("constant", "nearest")


def padding(value: Any, ndim: int) -> str | tuple[tuple[int, int], ...]:
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
            f"pair (low, high){perhaps(value, LAX_PADDINGS + EXTENDED_PADDINGS)}"
        )
    value = listed(value)
    if not isinstance(value, Sequence):
        try:
            number = integer("padding", value)
        except TypeError as error:
            names = ", ".join(map(repr, LAX_PADDINGS + EXTENDED_PADDINGS))
            raise TypeError(
                f"{error}; or one of {names}; or integers or pairs (low, high), one per spatial axis"
            ) from None
        return ((number, number),) * ndim
    check_length("padding", value, ndim)
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
            f"spatial axis an integer or a pair (low, high){perhaps(value, TRANSPOSED_PADDINGS)}"
        )
    return padding(value, ndim)


def output_paddings(value: Sizes, strides: Sizes, dilation: Sizes, padding: Padding, ndim: int) -> tuple[int, ...]:
    """Return how many outputs each spatial axis of a transposed convolution has beyond those of its padding.

    Raises
    ------
    TypeError
        If one is no integer.
    ValueError
        If one is negative or, as in torch, not smaller than the stride or the dilation of its axis; if there are not as
        many as spatial axes; or if the padding is "CIRCULAR".
    """
    value = listed(0 if value is None else value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        check_length("output_padding", value, ndim)
        added = tuple(integer(f"output_padding[{axis}]", more) for axis, more in enumerate(value))
    else:
        added = (integer("output_padding", value),) * ndim
    for axis, (more, *spacing) in enumerate(zip(added, each(strides, ndim), each(dilation, ndim), strict=True)):
        if more < 0 or (more and more >= max(spacing)):
            raise ValueError(
                f"output_padding={value} must lie between 0 and {max(spacing) - 1} on axis {axis}, below its stride "
                f"({spacing[0]}) or kernel_dilation ({spacing[1]}), as in torch: padding=((low, high), ...) makes any "
                "number of outputs"
            )
    if padding == "CIRCULAR" and any(added):
        raise ValueError(
            f"output_padding={value} contradicts padding='CIRCULAR', whose result is one period: leave one of the two "
            "away"
        )
    return added


def boundary(value: object, cval: object, padding: Padding, input_dilation: Sizes, ndim: int) -> Any:
    """Return the boundary of each spatial axis, or None.

    Raises
    ------
    TypeError
        If it is neither a name nor a sequence of names, or if ``cval`` is no number.
    ValueError
        If a name is unknown, there are not as many as spatial axes, or it means nothing with this padding, this
        dilation of the input or this ``cval``.
    """
    cval = number("cval", cval)
    if value is None:
        if cval != 0:
            raise ValueError(f"cval={cval} has no effect without a boundary: give boundary='constant' too")
        return None
    names = check_boundary(value, ndim)
    if cval != 0 and "constant" not in names:
        raise ValueError(
            f"cval={cval} is the value beyond the ends of axes with the boundary 'constant', but boundary={value!r}"
        )
    if any(d != 1 for d in each(input_dilation, ndim)):
        raise ValueError(
            f"boundary={value!r} has no meaning with input_dilation={input_dilation}, whose zeros would be extended "
            "too: leave one of the two away"
        )
    if isinstance(padding, str) and padding.upper() not in ("SAME", "SAME_LOWER"):
        _check_named_padding(value, names, padding)
    return names


def _check_named_padding(value: object, names: Sequence[Boundary], padding: str) -> None:
    """Check that a boundary has a meaning with a padding's name other than those of zeros at both ends."""
    if padding == "CAUSAL":
        if all(name in _CAUSAL_BOUNDARIES for name in names):
            return
        raise ValueError(
            f"boundary={value!r} is not causal, since it reads later samples in front of the first, so that it "
            "contradicts padding='CAUSAL': choose 'constant' or 'nearest', or give the padding in numbers, "
            "padding=((low, 0),)"
        )
    remedy = "'SAME' or 'SAME_LOWER', or numbers of samples"
    if padding in _BOUNDARY_OF_PADDING:
        remedy += f" (padding={padding!r} is boundary={_BOUNDARY_OF_PADDING[padding]!r} with padding='SAME')"
    raise ValueError(
        f"boundary={value!r} contradicts padding={padding!r}: a boundary says what stands in place of the zeros of "
        f"another padding, so leave one of the two away or give padding={remedy}"
    )


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair (low, high), got {value!r}")
        return integer(name, value[0]), integer(name, value[1])
    number = integer(name, value)
    return number, number
