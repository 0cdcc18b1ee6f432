"""The operations that are measured, as data: shapes and options, without arrays and without any library."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np

from jaxconv._spec import ConvSpec, Held, Pads, Problem, dilated, groups_in_front, held_by_layers

Direction = Literal["forward", "input", "kernel"]
# What is computed: the result from both operands, or the gradient of one operand from the result's and the other one.
DIRECTIONS: tuple[Direction, ...] = ("forward", "input", "kernel")

Boundary = Literal["fill", "wrap"]
Mode = Literal["full", "same", "valid"]


def section(mode: Mode, size: int, taps: int) -> tuple[int, int]:
    """Return where a mode of SciPy starts in the full convolution of one axis, and how many outputs it has."""
    if mode == "full":
        return 0, size + taps - 1
    if mode == "same":
        return (taps - 1) // 2, size
    return min(size, taps) - 1, abs(size - taps) + 1


@dataclasses.dataclass(frozen=True)
class Signal:
    """A convolution of two arrays of the same rank, as `scipy.signal.convolve`; ``in1`` is the larger.

    With a ``batch``, that many arrays are convolved with one kernel.
    """

    in1: tuple[int, ...]
    in2: tuple[int, ...]
    mode: Mode = "full"
    boundary: Boundary = "fill"
    batch: int | None = None
    method: str = "auto"
    models: None = None

    def __post_init__(self) -> None:
        if len(self.in1) != len(self.in2) or any(m > n for n, m in zip(self.in1, self.in2, strict=True)):
            raise ValueError(f"in1 must be as large as in2 on every axis, got {self.in1} and {self.in2}")

    @property
    def sections(self) -> list[tuple[int, int]]:
        return [section(self.mode, n, m) for n, m in zip(self.in1, self.in2, strict=True)]

    @property
    def pads(self) -> list[tuple[int, int]]:
        """How far the outputs reach beyond ``in1``."""
        return [
            (m - 1 - start, start + length - n)
            for n, m, (start, length) in zip(self.in1, self.in2, self.sections, strict=True)
        ]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the operands ``x`` and ``w`` and of the result ``y``, as a caller has them."""
        batch = () if self.batch is None else (self.batch,)
        return {"x": (*batch, *self.in1), "w": self.in2, "y": (*batch, *(length for _, length in self.sections))}

    def problem(self, dtype: np.dtype) -> Problem:
        """Return what the shapes come to in the core's canonical form."""
        size, pads = self.in1, tuple(self.pads)
        if self.boundary != "fill":
            size = tuple(n + low + high for n, (low, high) in zip(size, pads, strict=True))
            pads = ((0, 0),) * len(size)
        spec = _spec(len(size), pads, dtype, "convolution", self.method)
        return Problem(1, self.batch or 1, 1, 1, size, self.in2, dtype, spec)

    def canonical(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an operand or result in canonical form."""
        if name == "x" and self.boundary != "fill":
            array = np.pad(array, self.pads, mode="wrap")
        return array[None, None, None] if name == "w" or self.batch is None else array[None, :, None]

    def __str__(self) -> str:
        batch = "" if self.batch is None else f"{self.batch} of "
        options = self.mode if self.boundary == "fill" else f"{self.mode}, {self.boundary}"
        return f"{batch}{by(self.in1)} * {by(self.in2)}, {options}"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a network, as `jax.lax.conv_general_dilated` (a correlation).

    With ``models``, both operands have a further axis in front, over which it is vmapped.
    """

    batch: int
    size: tuple[int, ...]
    channels: int
    out: int
    taps: tuple[int, ...]
    strides: tuple[int, ...] = ()
    padding: Pads = ()
    lhs_dilation: tuple[int, ...] = ()
    rhs_dilation: tuple[int, ...] = ()
    groups: int = 1
    channels_last: bool = True
    models: int | None = None
    method: str = "direct"

    def __post_init__(self) -> None:
        ones = (1,) * len(self.size)
        for name in ("strides", "lhs_dilation", "rhs_dilation"):
            object.__setattr__(self, name, getattr(self, name) or ones)
        object.__setattr__(self, "padding", self.padding or same(self.taps, self.rhs_dilation))
        if len({len(self.size), len(self.taps), len(self.strides), len(self.padding), len(self.lhs_dilation)}) != 1:
            raise ValueError(f"as many entries as spatial axes are needed, got {self}")
        if self.channels % self.groups or self.out % self.groups:
            raise ValueError(f"{self.channels} and {self.out} channels cannot be divided into {self.groups} groups")

    @functools.cached_property
    def dimension_numbers(self) -> tuple[str, str, str]:
        space = "DHW"[-len(self.size) :]
        if self.channels_last:
            return f"N{space}C", f"{space}IO", f"N{space}C"
        return f"NC{space}", f"OI{space}", f"NC{space}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the operands ``x`` and ``w`` and of the result ``y``, as a caller has them."""
        models = () if self.models is None else (self.models,)
        outputs = self.problem(np.dtype(np.float32)).output_shape
        inside = self.channels // self.groups
        if self.channels_last:
            x, w = (self.batch, *self.size, self.channels), (*self.taps, inside, self.out)
            y = (self.batch, *outputs, self.out)
        else:
            x, w = (self.batch, self.channels, *self.size), (self.out, inside, *self.taps)
            y = (self.batch, self.out, *outputs)
        return {"x": (*models, *x), "w": (*models, *w), "y": (*models, *y)}

    def problem(self, dtype: np.dtype) -> Problem:
        """Return what the shapes come to in the core's canonical form."""
        held = held_by_layers(len(self.size), channels_last=self.channels_last)
        if self.models is not None and self.groups == 1:
            held = groups_in_front(held)
        spec = _spec(len(self.size), self.padding, dtype, "correlation", self.method, held)
        spec = dataclasses.replace(
            spec, strides=self.strides, lhs_dilation=self.lhs_dilation, rhs_dilation=self.rhs_dilation
        )
        groups = (self.models or 1) * self.groups
        return Problem(
            groups,
            self.batch,
            self.channels // self.groups,
            self.out // self.groups,
            self.size,
            self.taps,
            dtype,
            spec,
        )

    def canonical(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an operand or result in canonical form."""
        array = array if self.models is not None else array[None]
        models, ndim = array.shape[0], len(self.size)
        if self.channels_last:
            # M *K I O -> M O I *K for kernels; M N *S C -> M N C *S otherwise.
            array = np.moveaxis(array, (-1, -2), (1, 2)) if name == "w" else np.moveaxis(array, -1, 2)
        space = array.shape[-ndim:]
        if name == "w":
            array = array.reshape(models * self.groups, -1, array.shape[2], *space)
        else:
            array = array.reshape(models, array.shape[1], self.groups, -1, *space).swapaxes(1, 2)
            array = array.reshape(models * self.groups, *array.shape[2:])
        return array

    def __str__(self) -> str:
        models = "" if self.models is None else f"{self.models} models, "
        layout = self.dimension_numbers[0]
        x = by(
            (self.batch, *self.size, self.channels) if self.channels_last else (self.batch, self.channels, *self.size)
        )
        options = [f"{models}{layout} {x} to {self.out}", by(self.taps)]
        steps = {"stride": self.strides, "dilation": self.rhs_dilation, "transposed by": self.lhs_dilation}
        options += [f"{name} {by(values)}" for name, values in steps.items() if any(step != 1 for step in values)]
        if self.groups > 1:
            options.append("depthwise" if self.groups == self.channels else f"{self.groups} groups")
        return ", ".join(options)


Operation = Signal | Layer


def multiply_adds(operation: Operation) -> int:
    """Multiply-adds of the definition (the gradients have as many)."""
    return operation.problem(np.dtype(np.float32)).multiply_adds


def operand_names(direction: Direction) -> tuple[str, str, str]:
    """Return the names of the two operands of a direction, and of its result."""
    return {"forward": ("x", "w", "y"), "input": ("y", "w", "x"), "kernel": ("x", "y", "w")}[direction]


def same(taps: tuple[int, ...], dilation: tuple[int, ...] | None = None) -> Pads:
    """Return the padding that keeps the size at stride 1."""
    reaches = [dilated(k, d) - 1 for k, d in zip(taps, dilation or (1,) * len(taps), strict=True)]
    return tuple((reach // 2, reach - reach // 2) for reach in reaches)


def transposed(taps: tuple[int, ...], padding: tuple[int, ...], output_padding: tuple[int, ...] | None = None) -> Pads:
    """Return the padding of the dilated input that a transposed convolution with `padding` has (torch's meaning)."""
    extra = output_padding or (0,) * len(taps)
    return tuple((k - 1 - p, k - 1 - p + e) for k, p, e in zip(taps, padding, extra, strict=True))


def by(shape: tuple[int, ...]) -> str:
    """Write a shape: 8×56×56×64."""
    return "×".join(map(str, shape))


def elements(operation: Operation) -> int:
    """Elements of both operands and of the result together."""
    return sum(math.prod(shape) for shape in operation.shapes.values())


def _spec(ndim: int, pads: Pads, dtype: np.dtype, convention: str, method: str, held: Held | None = None) -> ConvSpec:
    ones = (1,) * ndim
    return ConvSpec(
        strides=ones,
        padding=pads,
        lhs_dilation=ones,
        rhs_dilation=ones,
        convention=convention,  # type: ignore[arg-type]
        method=method,
        precision=None,
        out_dtype=dtype,
        held=held,
    )
