"""From any caller's operands to the primitive: validation, dtype promotion, defaults.

Every public function ends here, with its operands in the canonical form (see `jaxconv._spec`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxconv._plan import check_method, check_supported
from jaxconv._primitive import bind
from jaxconv._spec import CONVENTIONS, Convention, ConvSpec, Method, Problem, held_by_layers
from jaxconv._text import perhaps


def conv(
    x: jax.Array,
    w: jax.Array,
    *,
    strides: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    convention: Convention = "correlation",
    method: Method = "auto",
    precision: lax.PrecisionLike = None,
    preferred_element_type: Any = None,
    channels_last: bool = False,
) -> jax.Array:
    """Convolve or correlate canonical operands.

    Parameters
    ----------
    x
        Shape ``(groups, batch, in_channels, *spatial)``; real, complex or integer.
    w
        Shape ``(groups, out_channels, in_channels, *kernel)``; promoted with ``x`` by JAX's rules.
    strides, lhs_dilation, rhs_dilation
        One positive integer per spatial axis; ones by default.
    padding
        One ``(low, high)`` pair per spatial axis, negative to crop; zeros by default.
    convention
        ``"correlation"`` or ``"convolution"``.
    method
        ``"auto"``, ``"direct"``, an algorithm's name or a triple (see `jaxconv.plan`).
    precision
        As for `jax.lax.dot_general`.
    preferred_element_type
        dtype of the result; that of the promoted operands by default.
    channels_last
        Whether the caller's data are channels-last; only a hint.

    Returns
    -------
    jax.Array
        Shape ``(groups, batch, out_channels, *outputs)``.

    Raises
    ------
    TypeError
        If a dtype is not numeric, or the preferred element type is of another kind.
    ValueError
        If shapes, strides, dilations, padding, convention or method do not fit.
    """
    _check_operands(x, w)
    _check_sharding(x, w)
    ndim = x.ndim - 3
    dtype = jnp.result_type(x, w)
    out_dtype = _output_dtype(dtype, preferred_element_type)
    spec = ConvSpec(
        strides=positive("strides", strides, ndim),
        padding=pads(padding, ndim),
        lhs_dilation=positive("lhs_dilation", lhs_dilation, ndim),
        rhs_dilation=positive("rhs_dilation", rhs_dilation, ndim),
        convention=check_convention(convention),
        method=check_method(method),
        precision=lax_precision(precision),
        out_dtype=out_dtype,
        held=held_by_layers(ndim, channels_last=channels_last),
    )
    check_supported(Problem.of(x.shape, w.shape, dtype, spec), spec.method)
    return bind(x.astype(dtype), w.astype(dtype), spec)


def as_array(value: ArrayLike) -> jax.Array:
    """Convert what is no array yet, such as a list, each number of which `jax.jit` would take for an argument.

    NumPy's arrays and plain numbers pass as they are, since `jax.jit` converts them faster.
    """
    if isinstance(value, (jax.Array, np.ndarray, np.generic, int, float, complex)):
        return value  # type: ignore[return-value]
    return jnp.asarray(value)


def check_convention(convention: Any) -> Convention:
    """Return the convention if it is one.

    Raises
    ------
    ValueError
        If it is not.
    """
    if convention not in CONVENTIONS:
        hint = perhaps(convention, CONVENTIONS) if isinstance(convention, str) else ""
        raise ValueError(f"unknown convention {convention!r}: choose one of {', '.join(map(repr, CONVENTIONS))}{hint}")
    return convention


def lax_precision(precision: lax.PrecisionLike) -> tuple[lax.Precision, lax.Precision] | None:
    """Return a precision in canonical, hashable form: None, or one `jax.lax.Precision` for each operand.

    Raises
    ------
    ValueError
        If it is no precision.
    """
    if precision is None:
        return None
    pair = tuple(precision) if isinstance(precision, (tuple, list)) else (precision, precision)
    try:
        left, right = (lax.Precision.DEFAULT if p is None else lax.Precision(p) for p in pair)
    except (TypeError, ValueError):
        names = ", ".join(repr(p.name.lower()) for p in lax.Precision)
        raise ValueError(
            f"precision must be None, a jax.lax.Precision, one of {names}, or a pair of those, got {precision!r}"
        ) from None
    return left, right


def check_numeric(name: str, dtype: Any) -> None:
    """Check that a dtype can be summed and multiplied.

    Raises
    ------
    TypeError
        If it is boolean or not numeric.
    """
    if not jnp.issubdtype(dtype, np.number):
        raise TypeError(
            f"{name} has dtype {dtype}, but convolution needs a real, complex or integer dtype: convert it, for "
            "example with .astype(jax.numpy.int32)"
        )


def _check_operands(x: jax.Array, w: jax.Array) -> None:
    for name, operand in (("x", x), ("w", w)):
        check_numeric(name, operand.dtype)
        if operand.ndim < 3:
            raise ValueError(
                f"{name} must have at least 3 axes (group, batch or output channel, input channel), "
                f"got shape {operand.shape}"
            )
    if x.ndim != w.ndim:
        raise ValueError(
            f"the input and the kernel must have as many spatial axes as each other, got {x.ndim - 3} (shape "
            f"{x.shape}) and {w.ndim - 3} (shape {w.shape})"
        )
    if x.shape[0] != w.shape[0]:
        raise ValueError(f"the input has {x.shape[0]} groups and the kernel {w.shape[0]}: shapes {x.shape}, {w.shape}")
    if x.shape[2] != w.shape[2]:
        raise ValueError(
            f"the input has {x.shape[2]} channels (in each group) and the kernel expects {w.shape[2]}: "
            f"shapes {x.shape} and {w.shape}"
        )


def _check_sharding(x: jax.Array, w: jax.Array) -> None:
    """Refuse what would need communication that nobody asked for, on a mesh with explicit axes."""
    (x_group, _, *x_summed), (w_group, _, *w_summed) = (tuple(jax.typeof(a).sharding.spec) for a in (x, w))
    if any(axis is not None for axis in (*x_summed, *w_summed)):
        raise ValueError(
            "a convolution cannot be sharded over its input channels or spatial axes, but the operands are "
            f"{jax.typeof(x)} and {jax.typeof(w)} (group, batch or output channel, input channel, *spatial): reshard "
            "them with jax.sharding.reshard, or use jax.shard_map"
        )
    if x_group is not None and w_group is not None and x_group != w_group:
        raise ValueError(
            f"the operands' group axes are sharded differently, over {x_group!r} and {w_group!r}: reshard one of them "
            "with jax.sharding.reshard"
        )


def _output_dtype(dtype: Any, preferred: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if preferred is None:
        return dtype
    preferred = np.dtype(jax.dtypes.canonicalize_dtype(preferred))
    kinds = (jnp.integer, jnp.floating, jnp.complexfloating)
    kind, asked = (next((k for k in kinds if jnp.issubdtype(d, k)), None) for d in (dtype, preferred))
    if kind is not asked or preferred.itemsize < dtype.itemsize:
        raise TypeError(
            f"preferred_element_type must be of the kind of the operands' dtype and no narrower: got {preferred} for "
            f"{dtype}"
        )
    return preferred


def _per_axis(name: str, values: Any, ndim: int) -> tuple:
    try:
        values = tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence with one entry per spatial axis ({ndim}), got {values!r}") from None
    if len(values) != ndim:
        raise ValueError(f"{name} must have one entry per spatial axis: got {len(values)} ({values}) for {ndim} axes")
    return values


def _integer(name: str, value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"{name} must hold integers, got {value!r} of type {type(value).__name__}")


def positive(name: str, values: Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return one positive integer for each spatial axis, ones by default.

    Raises
    ------
    TypeError
        If they are no sequence of integers.
    ValueError
        If they are not as many as there are axes, or not positive.
    """
    if values is None:
        return (1,) * ndim
    numbers = tuple(_integer(name, value) for value in _per_axis(name, values, ndim))
    if any(number < 1 for number in numbers):
        raise ValueError(f"{name} must be positive, got {numbers}")
    return numbers


def pads(padding: Sequence[tuple[int, int]] | None, ndim: int) -> tuple[tuple[int, int], ...]:
    """Return one pair of integers for each spatial axis, zeros by default.

    Raises
    ------
    TypeError
        If they are no sequence of pairs of integers.
    ValueError
        If they are not as many as there are axes, or no pairs.
    """
    if padding is None:
        return ((0, 0),) * ndim
    pairs = []
    for pair in _per_axis("padding", padding, ndim):
        low, high = _pair(pair)
        pairs.append((low, high))
    return tuple(pairs)


def _pair(pair: Any) -> tuple[Any, Any]:
    try:
        low, high = pair
    except (TypeError, ValueError):
        raise ValueError(f"padding must hold one (low, high) pair per spatial axis, got {pair!r}") from None
    return tuple(p if jax.export.is_symbolic_dim(p) else _integer("padding", p) for p in (low, high))  # type: ignore[return-value]
