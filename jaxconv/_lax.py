"""`jax.lax`'s convolutions on arrays: layouts, groups and named padding as the primitive's canonical form.

Compiled once for each combination of shapes, dtypes and options. The arguments have passed `jaxconv.lax`, which
documents them.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxconv import _ops
from jaxconv._spec import Convention, Method, dilated

# The layouts of `jax.lax.conv_transpose` where none is given, by the number of spatial axes.
_TRANSPOSED_LAYOUTS = (
    ("NC", "IO", "NC"),
    ("NHC", "HIO", "NHC"),
    ("NHWC", "HWIO", "NHWC"),
    ("NHWDC", "HWDIO", "NHWDC"),
)


def hashable(value: Any) -> Any:
    """Turn (nested) lists and NumPy arrays into tuples, so that they can be static arguments."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, lax.ConvDimensionNumbers):
        return lax.ConvDimensionNumbers(*map(tuple, value))
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple)) else value


@functools.partial(
    jax.jit,
    static_argnames=(
        "strides",
        "padding",
        "lhs_dilation",
        "rhs_dilation",
        "dimension_numbers",
        "feature_groups",
        "batch_groups",
        "precision",
        "preferred_element_type",
        "out_sharding",
        "convention",
        "method",
    ),
)
def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    *,
    strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_groups: int,
    batch_groups: int,
    precision: Any,
    preferred_element_type: Any,
    out_sharding: Any,
    convention: Convention,
    method: Method,
) -> jax.Array:
    if lhs.dtype != rhs.dtype:
        raise TypeError(
            f"lhs and rhs must have the same dtype, got {lhs.dtype} and {rhs.dtype}: convert one of them with .astype"
        )
    ndim = spatial_rank(lhs, rhs)
    strides = _ops.positive("window_strides", strides, ndim)
    lhs_dilation = _ops.positive("lhs_dilation", lhs_dilation, ndim)
    rhs_dilation = _ops.positive("rhs_dilation", rhs_dilation, ndim)
    dimensions = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    lhs_shape, rhs_shape = (
        tuple(operand.shape[axis] for axis in axes)
        for operand, axes in ((lhs, dimensions.lhs_spec), (rhs, dimensions.rhs_spec))
    )
    groups = _check_groups(lhs_shape, rhs_shape, feature_groups, batch_groups)
    if padding is None:
        raise ValueError("padding must be 'SAME', 'SAME_LOWER', 'VALID' or pairs of integers, got None")
    if isinstance(padding, str):
        padding = _pads(padding, lhs_shape[2:], rhs_shape[2:], strides, lhs_dilation, rhs_dilation)
    y = _ops.conv(
        _grouped(lhs, dimensions.lhs_spec, 0 if batch_groups > 1 else 1, groups),
        _grouped(rhs, dimensions.rhs_spec, 0, groups),
        strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        convention=convention,
        method=method,
        precision=precision,
        preferred_element_type=preferred_element_type,
        channels_last=ndim > 0 and dimensions.lhs_spec[1] == ndim + 1,
    )
    y = _ungrouped(y, dimensions.out_spec)
    return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def _grouped(operand: jax.Array, axes: Sequence[int], split: int, groups: int) -> jax.Array:
    """Bring an operand to the canonical form, its axis ``axes[split]`` taken apart into groups.

    It is taken apart where it stands, so that what remains is a single transposition, which XLA can cancel against that
    of an algorithm which computes in the caller's layout.
    """
    where = axes[split]
    before, size, after = operand.shape[:where], operand.shape[where], operand.shape[where + 1 :]
    operand = operand.reshape(*before, groups, size // groups, *after)
    inside = [axis + (axis >= where) for axis in axes]
    return operand.transpose(where, *inside)


def _ungrouped(y: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Bring a canonical result to the layout whose batch, channels and spatial axes stand at ``axes``."""
    order = []
    for position in range(len(axes)):
        axis = axes.index(position)
        order += [0, 2] if axis == 1 else [1 + axis if axis else 1]
    y = y.transpose(order)
    where = order.index(0)
    return y.reshape(*y.shape[:where], y.shape[where] * y.shape[where + 1], *y.shape[where + 2 :])


def spatial_rank(lhs: Any, rhs: Any) -> int:
    """Return the number of spatial axes, if both operands have as many.

    Raises
    ------
    ValueError
        If they have not.
    """
    shapes = np.shape(lhs), np.shape(rhs)
    if len(shapes[0]) != len(shapes[1]) or len(shapes[0]) < 2:
        raise ValueError(
            "lhs and rhs must have the same rank, at least 2 (batch or output features, input features, *spatial), got "
            f"shapes {shapes[0]} and {shapes[1]}"
        )
    return len(shapes[0]) - 2


def transposed_layout(dimension_numbers: Any, lhs_shape: Any, rhs_shape: Any) -> lax.ConvDimensionNumbers:
    """Return the layout of a transposed convolution, channels-last by default.

    Raises
    ------
    TypeError, ValueError
        If it is no layout for these shapes, or none is given for more than three spatial axes.
    """
    if dimension_numbers is None:
        ndim = len(lhs_shape) - 2
        most = len(_TRANSPOSED_LAYOUTS) - 1
        if ndim > most:
            raise ValueError(
                f"conv_transpose has default dimension_numbers for at most {most} spatial axes, got operands with "
                f"{ndim} (shapes {lhs_shape} and {rhs_shape}): give dimension_numbers"
            )
        dimension_numbers = _TRANSPOSED_LAYOUTS[ndim]
    return lax.conv_dimension_numbers(lhs_shape, rhs_shape, dimension_numbers)


def transposed_pads(padding: Any, window: Sequence[int], strides: Sequence[int], consistent: bool) -> Any:
    """Return the padding of the dilated input that `jax.lax.conv_transpose` means by its argument.

    ``"SAME"`` and ``"VALID"`` name the padding of the convolution that is transposed. So do pairs of numbers if
    ``consistent``; otherwise they pad the dilated input themselves.

    Raises
    ------
    ValueError
        If the padding is no pair for each axis, or a name that means nothing here.
    """
    if isinstance(padding, str):
        if padding == "SAME":
            return tuple(map(_transposed_same, window, strides))
        if padding == "VALID":
            return tuple((taps - 1, max(taps, step) - 1) for taps, step in zip(window, strides, strict=True))
        if consistent or any(step != 1 for step in strides):
            raise ValueError(
                f"unknown padding {padding!r} for strides={tuple(strides)}: choose 'SAME', 'VALID' or pairs of integers"
            )
        return padding
    if not consistent or padding is None:
        return padding
    pairs = _ops.pads(padding, len(window))
    return tuple((taps - 1 - low, taps - 1 - high) for taps, (low, high) in zip(window, pairs, strict=True))


def _transposed_same(taps: int, step: int) -> tuple[int, int]:
    """Pad so that the result is ``step`` times as long as the input."""
    total = taps + step - 2
    low = taps - 1 if step > taps - 1 else (total + 1) // 2
    return low, total - low


def _check_groups(x_shape: Sequence[int], w_shape: Sequence[int], feature_groups: int, batch_groups: int) -> int:
    """Return the number of groups, of either kind, if the shapes (N, C, ...) and (O, I, ...) agree with it."""
    for name, count in (("feature_group_count", feature_groups), ("batch_group_count", batch_groups)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise TypeError(f"{name} must be an integer, got {count!r} of type {type(count).__name__}")
        if count < 1:
            raise ValueError(f"{name} must be positive, got {count}")
    if feature_groups > 1 and batch_groups > 1:
        raise ValueError(
            "at most one of feature_group_count and batch_group_count may exceed 1, got "
            f"{feature_groups} and {batch_groups}"
        )
    groups = feature_groups * batch_groups
    if w_shape[0] % groups:
        raise ValueError(f"the kernel's {w_shape[0]} output features cannot be divided into {groups} groups")
    if x_shape[0] % batch_groups:
        raise ValueError(f"the batch of {x_shape[0]} cannot be divided into {batch_groups} groups")
    if x_shape[1] != w_shape[1] * feature_groups:
        raise ValueError(
            f"the input has {x_shape[1]} features, but the kernel expects {w_shape[1]} in each of {feature_groups} "
            "feature groups: the input's features must be the kernel's input features x feature_group_count"
        )
    return groups


def _pads(
    padding: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Turn a padding's name into pairs of numbers."""
    if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
        raise ValueError(f"unknown padding {padding!r}: choose 'SAME', 'SAME_LOWER', 'VALID' or pairs of integers")
    if any(d != 1 for d in lhs_dilation):
        raise ValueError(f"padding={padding!r} has no meaning with lhs_dilation={lhs_dilation}: give pairs of integers")
    window = [dilated(taps, d) for taps, d in zip(kernel, rhs_dilation, strict=True)]
    return lax.padtype_to_pads(sizes, window, strides, padding.upper())
