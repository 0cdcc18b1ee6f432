"""What one convolution is: its specification, its shapes and its two adjoints.

Everything here is plain Python on integers and strings: no arrays, no tracing.

The primitive computes, for operands with an explicit group axis ::

    x[g, n, c, *S]  x  w[g, o, c, *K]  ->  y[g, n, o, *M]

the *correlation* ::

    y[g, n, o, m] = sum_{c, k} w[g, o, c, k] * xp[g, n, c, m * stride + k * rhs_dilation]

in which ``xp`` is ``x`` with ``lhs_dilation - 1`` zeros between neighbours, then padded by ``(low, high)`` zeros on
each axis, where a negative number crops. The *convolution* of the same operands is the correlation with the kernel
reversed along every spatial axis, under the same padding.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

Convention: TypeAlias = Literal["correlation", "convolution"]
# A method: one name, or the names for (forward, input gradient, kernel gradient).
Method: TypeAlias = str | tuple[str, str, str]
Pads: TypeAlias = tuple[tuple[int, int], ...]

# An order of the canonical axes, and those in which a caller holds x, w and y.
Order: TypeAlias = tuple[int, ...]
Held: TypeAlias = tuple[Order, Order, Order]

CONVENTIONS: tuple[Convention, Convention] = ("correlation", "convolution")


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """All that defines a convolution apart from its operands. Hashable: it is the parameter of the primitive.

    Attributes
    ----------
    strides, lhs_dilation, rhs_dilation
        One positive integer per spatial axis.
    padding
        One ``(low, high)`` pair per spatial axis; negative numbers crop.
    convention
        ``"correlation"`` or ``"convolution"``: the one bit that differentiation toggles.
    method
        What was asked for: ``"auto"``, ``"direct"``, the name of a registered algorithm, or a triple of those for the
        forward computation, the input gradient and the kernel gradient.
    precision
        As for `jax.lax.dot_general`, canonical (``None``, a `jax.lax.Precision` or a pair of them).
    out_dtype
        The dtype of the result.
    held
        In which orders of the canonical axes the caller holds x, w and y; None if in the canonical one. A hint that
        lets an algorithm compute in those orders, so that the transposes to the canonical form cancel.
    tuning
        The measured winners that were in force when the convolution was bound (a `jaxconv.Tuning`), if any. The planner
        consults them when the convolution is lowered, and gradients inherit them.
    """

    strides: tuple[int, ...]
    padding: Pads
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    convention: Convention
    method: Method
    precision: Any
    out_dtype: np.dtype
    held: Held | None = None
    tuning: Any = dataclasses.field(default=None, repr=False)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.strides)

    @property
    def orders(self) -> Held:
        """The orders of the canonical axes in which the caller holds x, w and y."""
        canonical = tuple(range(3 + self.ndim))
        return self.held or (canonical, canonical, canonical)

    @property
    def forward_method(self) -> str:
        """The method for this computation (not for its gradients)."""
        return self.method if isinstance(self.method, str) else self.method[0]


def held_by_layers(ndim: int, *, channels_last: bool) -> Held:
    """Return the orders in which layers hold their data: groups stand in front of the channels of each."""
    spatial = tuple(range(3, 3 + ndim))
    if channels_last:
        return (1, *spatial, 0, 2), (*spatial, 2, 0, 1), (1, *spatial, 0, 2)
    return (1, 0, 2, *spatial), (0, 1, 2, *spatial), (1, 0, 2, *spatial)


def groups_in_front(held: Held) -> Held:
    """Return the orders of data to which an axis of groups was added in front, as `jax.vmap` does."""
    x, w, y = ((0, *(axis for axis in order if axis != 0)) for order in held)
    return x, w, y


def exchanged_order(order: Order) -> Order:
    """Return an order of the canonical axes after axes 1 and 2, the channel-like ones, have changed places."""
    return tuple({1: 2, 2: 1}.get(axis, axis) for axis in order)


def held_without(held: Held, spatial: Collection[int]) -> Held:
    """Return the orders of the axes that remain without some of the spatial ones."""
    left_out = [3 + axis for axis in spatial]
    x, w, y = (
        tuple(axis - sum(other < axis for other in left_out) for axis in order if axis not in left_out)
        for order in held
    )
    return x, w, y


def toggle(convention: Convention) -> Convention:
    """Return the other convention."""
    return CONVENTIONS[1 - CONVENTIONS.index(convention)]


def dilated(size: int, dilation: int) -> int:
    """Length of ``size`` samples with ``dilation - 1`` zeros between neighbours."""
    if is_static(size) and size == 0:
        return 0
    return (size - 1) * dilation + 1


def is_static(size: Any) -> bool:
    """Whether a dimension is a number, not a symbol of `jax.export`."""
    return isinstance(size, (int, np.integer))


def output_shape(input_shape: Sequence[int], kernel_shape: Sequence[int], spec: ConvSpec) -> tuple[int, ...]:
    """Spatial shape of the result; an axis too short for the kernel gives 0."""
    shape = []
    for size, taps, stride, (low, high), lhs_dilation, rhs_dilation in zip(
        input_shape, kernel_shape, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, strict=True
    ):
        room = dilated(size, lhs_dilation) + low + high - dilated(taps, rhs_dilation)
        length = room // stride + 1
        shape.append(max(length, 0) if is_static(length) else length)
    return tuple(shape)


def _permuted_method(method: Method, order: tuple[int, int, int]) -> Method:
    return method if isinstance(method, str) else tuple(method[i] for i in order)  # type: ignore[return-value]


def input_gradient_spec(input_shape: Sequence[int], kernel_shape: Sequence[int], spec: ConvSpec) -> ConvSpec:
    """Specification of the adjoint in the input: cotangent x w -> gradient of x.

    Where ``x[i]`` sits at ``i * lhs_dilation + low``, the adjoint gathers ::

        dx[i] = sum over m * stride + k * rhs_dilation = i * lhs_dilation + low of w[k] * ct[m]

    which is the other convention: the cotangent is dilated by the stride, the result strided by the input's dilation,
    and the paddings are those that make it as long as the input.
    """
    pads = []
    x_order, w_order, y_order = spec.orders
    outputs = output_shape(input_shape, kernel_shape, spec)
    for size, taps, length, stride, (low, _), lhs_dilation, rhs_dilation in zip(
        input_shape,
        kernel_shape,
        outputs,
        spec.strides,
        spec.padding,
        spec.lhs_dilation,
        spec.rhs_dilation,
        strict=True,
    ):
        reach = dilated(taps, rhs_dilation) - 1
        front = reach - low
        pads.append((front, dilated(size, lhs_dilation) - dilated(length, stride) - front + reach))
    return dataclasses.replace(
        spec,
        strides=spec.lhs_dilation,
        lhs_dilation=spec.strides,
        padding=tuple(pads),
        convention=toggle(spec.convention),
        method=_permuted_method(spec.method, (1, 0, 2)),
        held=(y_order, exchanged_order(w_order), x_order),
    )


def kernel_gradient_spec(input_shape: Sequence[int], kernel_shape: Sequence[int], spec: ConvSpec) -> ConvSpec:
    """Specification of the adjoint in the kernel: x x cotangent -> gradient of the *correlation* kernel.

    The contraction is ``dw[k] = sum_m ct[m] * xp[m * stride + k * rhs_dilation]``: a correlation of the input (batch
    and channels exchanged) with the cotangent, in which stride and kernel dilation have changed places. Under
    ``"convolution"`` the caller reverses the result.
    """
    pads = []
    x_order, w_order, y_order = spec.orders
    outputs = output_shape(input_shape, kernel_shape, spec)
    for size, taps, length, stride, (low, _), lhs_dilation, rhs_dilation in zip(
        input_shape,
        kernel_shape,
        outputs,
        spec.strides,
        spec.padding,
        spec.lhs_dilation,
        spec.rhs_dilation,
        strict=True,
    ):
        reach = dilated(taps, rhs_dilation) - 1
        pads.append((low, reach + dilated(length, stride) - dilated(size, lhs_dilation) - low))
    return dataclasses.replace(
        spec,
        strides=spec.rhs_dilation,
        rhs_dilation=spec.strides,
        padding=tuple(pads),
        convention="correlation",
        method=_permuted_method(spec.method, (2, 1, 0)),
        held=(exchanged_order(x_order), exchanged_order(y_order), exchanged_order(w_order)),
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """A specification with its shapes and dtype: all that an algorithm and the planner may look at.

    The operands are ``x[groups, batch, in_channels, *input_shape]`` and ``w[groups, out_channels, in_channels,
    *kernel_shape]``, both of ``dtype``; the result is ``y[groups, batch, out_channels, *output_shape]`` of
    ``spec.out_dtype``.
    """

    groups: int
    batch: int
    in_channels: int
    out_channels: int
    input_shape: tuple[int, ...]
    kernel_shape: tuple[int, ...]
    dtype: np.dtype
    spec: ConvSpec

    @classmethod
    def of(cls, x_shape: Sequence[int], w_shape: Sequence[int], dtype: Any, spec: ConvSpec) -> "Problem":
        """Build the problem from the shapes of canonical operands."""
        groups, batch, in_channels = x_shape[:3]
        return cls(
            groups, batch, in_channels, w_shape[1], tuple(x_shape[3:]), tuple(w_shape[3:]), np.dtype(dtype), spec
        )

    @functools.cached_property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial shape of the result."""
        return output_shape(self.input_shape, self.kernel_shape, self.spec)

    @functools.cached_property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the first operand."""
        return (self.groups, self.batch, self.in_channels, *self.input_shape)

    @functools.cached_property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the second operand."""
        return (self.groups, self.out_channels, self.in_channels, *self.kernel_shape)

    @functools.cached_property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (self.groups, self.batch, self.out_channels, *self.output_shape)

    @functools.cached_property
    def taps(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel_shape)

    @functools.cached_property
    def outputs(self) -> int:
        """Number of output positions."""
        return math.prod(self.output_shape)

    @functools.cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of the definition, those that meet padding or inserted zeros included."""
        return math.prod(self.y_shape) * self.in_channels * self.taps

    @functools.cached_property
    def static(self) -> bool:
        """Whether every dimension is a number."""
        return all(map(is_static, (*self.x_shape, *self.w_shape)))

    @functools.cached_property
    def held_canonically(self) -> bool:
        """Whether the caller holds the axes that are longer than 1 in the canonical order."""
        for order, shape in zip(self.spec.orders, (self.x_shape, self.w_shape, self.y_shape), strict=True):
            longer = [axis for axis in order if shape[axis] != 1]
            if longer != sorted(longer):
                return False
        return True

    @functools.cached_property
    def empty(self) -> bool:
        """Whether nothing is summed or nothing is returned, so that the result is all zeros (or has no element)."""
        return any(is_static(size) and size == 0 for size in (*self.x_shape, *self.w_shape, *self.y_shape))

    def input_gradient(self) -> "Problem":
        """Build the problem of the adjoint in the input."""
        return dataclasses.replace(
            self,
            in_channels=self.out_channels,
            out_channels=self.in_channels,
            input_shape=self.output_shape,
            dtype=self.spec.out_dtype,
            spec=input_gradient_spec(self.input_shape, self.kernel_shape, self.spec),
        )

    def kernel_gradient(self) -> "Problem":
        """Build the problem of the adjoint in the kernel."""
        return dataclasses.replace(
            self,
            batch=self.in_channels,
            in_channels=self.batch,
            kernel_shape=self.output_shape,
            dtype=self.spec.out_dtype,
            spec=kernel_gradient_spec(self.input_shape, self.kernel_shape, self.spec),
        )
