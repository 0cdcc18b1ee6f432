"""What layers may be given, checked when they are made: errors name the argument as its author wrote it."""

import numbers
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

DEFAULT_KERNEL_INIT = nnx.initializers.lecun_normal()
DEFAULT_BIAS_INIT = nnx.initializers.zeros_init()

_FUNCTIONS = {
    "promote_dtype": "a function",
    "conv_general_dilated": "a function",
    "conv": "the class of a layer, such as flax.nnx.Conv",
    "conv_transpose": "the class of a layer, such as flax.nnx.ConvTranspose",
}

Sizes: TypeAlias = int | Sequence[int] | None


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


def number(name: str, value: Any) -> Any:
    """Return a real or complex number as one of Python's.

    Raises
    ------
    TypeError
        If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value.item() if isinstance(value, np.generic) else value


def real(name: str, value: Any) -> Any:
    """Return a real number as one of Python's.

    Raises
    ------
    TypeError
        If it is none.
    """
    value = number(name, value)
    if isinstance(value, complex):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return value


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


def positives(name: str, values: object, each_of: str = "spatial axis") -> tuple[int, ...]:
    """Return a sequence of positive integers, one for each of what the message names, as a tuple.

    Raises
    ------
    TypeError
        If it is no sequence of integers.
    ValueError
        If one is not positive, or there is none.
    """
    values = listed(values)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of integers, one for each {each_of}, got {values!r}")
    if not values:
        raise ValueError(f"{name} is empty: give one integer for each {each_of}")
    return tuple(positive(f"{name}[{i}]", value) for i, value in enumerate(values))


def kernel_sizes(value: object) -> tuple[int, ...]:
    """Return the shape of a kernel, of which a single integer stands for one spatial axis.

    Raises
    ------
    TypeError
        If it is neither an integer nor a sequence of integers.
    ValueError
        If one is not positive, or there is none.
    """
    value = listed(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        try:
            return (positive("kernel_size", value),)
        except TypeError:
            raise TypeError(
                f"kernel_size must be an integer or a sequence of integers, one per spatial axis, got {value!r}"
            ) from None
    return positives("kernel_size", value, "spatial axis, or use flax.nnx.Linear for none")


def features(in_features: object, out_features: object, feature_group_count: object) -> tuple[int, int, int]:
    """Return the numbers of features and of groups, which divide both.

    Raises
    ------
    TypeError
        If one is no integer.
    ValueError
        If one is not positive, or the groups do not divide the features.
    """
    groups = positive("feature_group_count", feature_group_count)
    counts = positive("in_features", in_features), positive("out_features", out_features)
    for name, count in zip(("in_features", "out_features"), counts, strict=True):
        if count % groups:
            least = count - count % groups
            nearest = f"{least} or {least + groups}" if least else f"{groups}"
            raise ValueError(
                f"{name}={count} cannot be divided into feature_group_count={groups} groups: the nearest multiple is "
                f"{nearest}"
            )
    return *counts, groups


def check_options(**options: Any) -> None:
    """Check those arguments of a layer whose names say what they are, such as ``kernel_init`` or ``dtype``.

    Raises
    ------
    TypeError
        If one is not of its type.
    ValueError
        If ``rngs`` has no keys for parameters.
    """
    for name, value in options.items():
        if name.endswith("_init") or name in _FUNCTIONS:
            if not callable(value):
                what = _FUNCTIONS.get(name, "an initialiser, a function (key, shape, dtype)")
                raise TypeError(f"{name} must be {what}, got {value!r}")
        elif name == "norm":
            if value is not None and not callable(value):
                raise TypeError(f"norm must be the class of a layer such as flax.nnx.LayerNorm, or None: got {value!r}")
        elif name.startswith("use_") or name in ("transpose_kernel", "residual"):
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif name.endswith("_metadata"):
            if not isinstance(value, Mapping):
                raise TypeError(f"{name} must be a mapping from names to values, got {value!r}")
        elif name == "rngs":
            _check_rngs(value)
        elif value is not None or name == "param_dtype":
            # No initialiser of Flax draws integers.
            drawn = name == "param_dtype" and options.get("kernel_init", DEFAULT_KERNEL_INIT) is DEFAULT_KERNEL_INIT
            _check_dtype(name, value, inexact=drawn or name == "dtype")


def mask(value: Any, kernel_shape: tuple[int, ...], meaning: str, name: str = "mask") -> Any:
    """Return the mask of a kernel (None for none).

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it is not of the kernel's shape, whose ``meaning`` the message gives.
    """
    if value is None:
        return None
    if not hasattr(value, "shape"):
        raise TypeError(f"{name} must be an array of the kernel's shape, {kernel_shape}, got {value!r}")
    if tuple(value.shape) != kernel_shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but the kernel has {kernel_shape}: {meaning}; "
            "jax.numpy.broadcast_to makes it as large"
        )
    return value


def check_parameter(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Check that an initialiser made a parameter of the shape that it was asked for.

    Raises
    ------
    ValueError
        If it did not.
    """
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}_init returned shape {tuple(value.shape)}, but was asked for {shape}")


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
    values = listed(values)
    if isinstance(values, str) or not isinstance(values, Sequence):
        try:
            return positive(name, values)
        except TypeError as error:
            raise TypeError(f"{error}: give one integer, or a sequence of one per spatial axis ({ndim})") from None
    check_length(name, values, ndim)
    return positives(name, values)


def each(value: Sizes, ndim: int) -> tuple[int, ...]:
    """Return one integer for each spatial axis, of an integer for all (None means 1) or a sequence."""
    return tuple(value) if isinstance(value, Sequence) else (1 if value is None else value,) * ndim


def array(name: str, value: Any) -> Any:
    """Return an array of JAX or NumPy as it is, and all else as one of JAX.

    Raises
    ------
    TypeError
        If it is no array of numbers.
    """
    if not isinstance(value, jax.Array | np.ndarray):
        try:
            value = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be an array, got one of type {type(value).__name__}") from error
    if not (jnp.issubdtype(value.dtype, np.number) or value.dtype == np.bool_):
        raise TypeError(f"{name} must be an array of numbers, got one of dtype {value.dtype}, shape {value.shape}")
    return value


def inputs(value: Any, kernel_size: tuple[int, ...] | None, in_features: int | None, ndim: int = 0) -> Any:
    """Return the input of a layer, ``(*batch, *spatial, features)``, as an array.

    Raises
    ------
    TypeError
        If it is no array of numbers.
    ValueError
        If it has fewer axes than a kernel of ``kernel_size`` (None for one of ``ndim`` axes) needs, or not
        ``in_features`` features (None for any number).
    """
    value = array("the input", value)
    shape, ndim = tuple(value.shape), ndim if kernel_size is None else len(kernel_size)
    if len(shape) < ndim + 1:
        layer = "the layer" if kernel_size is None else f"a layer with kernel_size={kernel_size}"
        raise ValueError(
            f"{layer} needs an input of at least {ndim + 1} axes, (*batch, *spatial, features), got shape {shape}"
        )
    if in_features is not None and shape[-1] != in_features:
        axis = -ndim - 1
        move = f", jax.numpy.moveaxis(inputs, {axis}, -1) moves them there" if shape[axis] == in_features else ""
        raise ValueError(
            f"the input's last axis has {shape[-1]} features (shape {shape}), but the layer was made with "
            f"in_features={in_features}: the features come last{move}"
        )
    return value


def listed(values: Any) -> Any:
    """Return an array as a list, and all else as it is."""
    return values.tolist() if isinstance(values, np.ndarray | jax.Array) else values


def _check_rngs(rngs: Any) -> None:
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"rngs must be random keys of Flax, such as flax.nnx.Rngs(0), got {rngs!r}")
    if not hasattr(rngs, "params"):
        raise ValueError(
            f"rngs has neither a stream 'params' nor a default one, such as flax.nnx.Rngs(0): got {rngs!r}"
        )


def _check_dtype(name: str, value: Any, inexact: bool) -> None:
    try:
        dtype = None if value is None else jnp.dtype(value)  # to NumPy None is float64
    except TypeError:
        dtype = None
    if dtype is None:
        raise TypeError(f"{name} must be a dtype, such as jax.numpy.float32, got {value!r}")
    if inexact and not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"{name} must be real or complex floating point, such as jax.numpy.float32, got {dtype}")


def check_length(name: str, values: Sequence, ndim: int) -> None:
    """Check that there is one entry per spatial axis."""
    if len(values) != ndim:
        raise ValueError(
            f"{name} must have one entry per spatial axis: got {len(values)} ({tuple(values)}), but kernel_size has "
            f"{ndim}"
        )
