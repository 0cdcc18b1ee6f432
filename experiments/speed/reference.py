"""Exact values to compare with: the definition, in extended precision, at some of the outputs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from experiments.speed.operations import Direction, Operation, operand_names
from jaxconv._spec import Problem

# Products that may be summed for one reference; and how many outputs it has at least, and at most.
PRODUCTS = 5e6
FEWEST, MOST = 16, 256


@dataclasses.dataclass(frozen=True)
class Reference:
    """Exact values of some outputs, which `index` tells, and the sums of absolute products there: ``|w| * |x|``."""

    direction: Direction
    flipped: bool
    index: tuple[np.ndarray, ...]
    exact: np.ndarray
    magnitude: np.ndarray

    def errors(self, result: np.ndarray) -> Errors:
        """Measure a result in the canonical form of what it is the gradient of (or of the result)."""
        if self.direction == "kernel":
            result = result.swapaxes(1, 2)
            result = np.flip(result, tuple(range(3, result.ndim))) if self.flipped else result
        largest = float(np.max(np.abs(result.astype(np.result_type(result.dtype, np.float32)))))
        values = result[self.index]
        values = values.astype(np.clongdouble if np.iscomplexobj(values) else np.longdouble)
        error = np.abs(values - self.exact)
        read = self.magnitude > 0  # where it is zero, nothing is summed and the result is an exact zero
        return Errors(
            relative=float(np.max(error)) / largest if largest else float(np.max(error)),
            local=float(np.max(error[read] / self.magnitude[read], initial=0.0)),
            norm=float(np.max(error) / np.max(self.magnitude, initial=1e-300)),
        )


@dataclasses.dataclass(frozen=True)
class Errors:
    """Largest errors: relative to the largest output, to each output's ``|w| * |x|``, and to the largest of those."""

    relative: float
    local: float
    norm: float


def reference(
    operation: Operation, direction: Direction, first: np.ndarray, second: np.ndarray, seed: int = 0
) -> Reference:
    """Compute some outputs of an operation on its operands (as its caller has them) by the definition."""
    forward = operation.problem(first.dtype)
    names = operand_names(direction)
    x, w = (operation.canonical(name, array) for name, array in zip(names, (first, second), strict=False))
    if direction == "forward":
        problem = forward
    elif direction == "input":
        problem, w = forward.input_gradient(), w.swapaxes(1, 2)
    else:
        problem, x, w = forward.kernel_gradient(), x.swapaxes(1, 2), w.swapaxes(1, 2)
    rng = np.random.default_rng(seed)
    count = int(np.clip(PRODUCTS / (problem.in_channels * problem.taps), FEWEST, MOST))
    size = math.prod(problem.y_shape)
    positions = np.sort(rng.choice(size, min(count, size), replace=False, shuffle=False))
    index = np.unravel_index(positions, problem.y_shape)
    pairs = [_output(problem, x, w, position) for position in zip(*index, strict=True)]
    exact, magnitude = (np.array(values) for values in zip(*pairs, strict=True))
    return Reference(direction, forward.spec.convention == "convolution", index, exact, magnitude)


def _output(problem: Problem, x: np.ndarray, w: np.ndarray, position: tuple[int, ...]) -> tuple[np.number, np.number]:
    """Return ``sum w[k] x[m s + k d]`` of one output, and the sum of the absolute products."""
    spec = problem.spec
    group, batch, out, *place = map(int, position)
    read, used = [], []
    for axis, m in enumerate(place):
        taps = np.arange(problem.kernel_shape[axis])
        at = m * spec.strides[axis] + taps * spec.rhs_dilation[axis] - spec.padding[axis][0]
        step, size = spec.lhs_dilation[axis], problem.input_shape[axis]
        inside = (at >= 0) & (at <= (size - 1) * step) & (at % step == 0)
        read.append(at[inside] // step)
        used.append(taps[::-1][inside] if spec.convention == "convolution" else taps[inside])
    channels = np.arange(problem.in_channels)
    window, kernel = x[group, batch][np.ix_(channels, *read)], w[group, out][np.ix_(channels, *used)]
    wide = np.clongdouble if np.iscomplexobj(x) else np.longdouble
    products = window.astype(wide) * kernel.astype(wide)
    return products.sum(), np.abs(products).sum()
