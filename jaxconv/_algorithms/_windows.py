"""Windows of a padded input, for the algorithms that write out the sum over taps or over outputs."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._spec import Problem, dilated


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the axes (group, batch, channel, *spatial), or those of them that are left, stand in an array."""

    order: tuple[int, ...]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial axes."""
        return tuple(self.order.index(axis) for axis in sorted(self.order) if axis >= 3)

    def arrange(self, array: jax.Array) -> jax.Array:
        """Bring a canonical array to this layout; axes that are left out have length 1."""
        left_out = self._left_out(array.ndim)
        return lax.squeeze(array.transpose((*left_out, *self.order)), range(len(left_out)))

    def undo(self, array: jax.Array, ndim: int) -> jax.Array:
        """Return an array of this layout in the canonical order, with so many axes."""
        left_out = self._left_out(ndim)
        array = lax.expand_dims(array, range(len(left_out)))
        return array.transpose(tuple(np.argsort((*left_out, *self.order)).tolist()))

    def _left_out(self, ndim: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(ndim) if axis not in self.order)


def moves(shape: Sequence[int], stored: Sequence[int], wanted: Sequence[int]) -> tuple[float, float]:
    """Return how many elements a transposition moves, and in how many contiguous runs; 0 if it moves nothing."""
    old, new = ([axis for axis in order if shape[axis] > 1] for order in (stored, wanted))
    if old == new:
        return 0, 0
    size, run = math.prod(shape), 1
    while old and new and old[-1] == new[-1]:
        run *= shape[old.pop()]
        new.pop()
    return size, size / run


def total_moves(*counts: tuple[float, float]) -> dict[str, float]:
    """Return what several transpositions move, as terms of a cost."""
    return {"moved": sum(size for size, _ in counts), "moved runs": sum(runs for _, runs in counts)}


def as_correlation(problem: Problem, w: jax.Array) -> jax.Array:
    """Return the kernel, in canonical order, of a correlation with the same result."""
    return lax.rev(w, tuple(range(3, w.ndim))) if problem.spec.convention == "convolution" else w


def padded_size(problem: Problem, axes: Sequence[int] | None = None) -> int:
    """Return the number of elements of the padded input, which `pad` copies it to; 0 if there is nothing to pad."""
    size, spec, nothing = problem.groups * problem.batch * problem.in_channels, problem.spec, True
    for axis, length in enumerate(problem.input_shape):
        if axes is None or axis in axes:
            pads, dilation = spec.padding[axis], spec.lhs_dilation[axis]
            nothing = nothing and not any(pads) and dilation == 1
            length = dilated(length, dilation) + sum(pads)
        size *= length
    return 0 if nothing else size


def pad(problem: Problem, x: jax.Array, layout: Layout, axes: Sequence[int] | None = None) -> jax.Array:
    """Dilate and pad the input, which is in the layout already, along some spatial axes or all.

    One axis after the other: XLA on CPU fuses these into one loop, which it compiles faster than that of a single
    padding of several axes.
    """
    for axis in range(problem.spec.ndim) if axes is None else axes:
        pads, dilation = problem.spec.padding[axis], problem.spec.lhs_dilation[axis]
        if any(pads) or dilation > 1:
            config = [(0, 0, 0)] * x.ndim
            config[layout.spatial[axis]] = (*pads, dilation - 1)
            x = lax.pad(x, jnp.zeros((), x.dtype), config)
    return x


def window(
    x: jax.Array, layout: Layout, start: Sequence[int | jax.Array], shape: Sequence[int], steps: Sequence[int]
) -> jax.Array:
    """Slice the spatial axes: ``shape`` samples from ``start``, ``steps`` apart."""
    begin: list[Any] = [0] * x.ndim
    extents, stride = list(x.shape), [1] * x.ndim
    for axis, first, size, step in zip(layout.spatial, start, shape, steps, strict=True):
        begin[axis], extents[axis], stride[axis] = first, dilated(size, step), step
    if all(isinstance(first, int) for first in begin):
        end = [first + extent for first, extent in zip(begin, extents, strict=True)]
    else:
        begin = [np.uint32(first) if isinstance(first, int) else first for first in begin]
        x, begin, end = lax.dynamic_slice(x, begin, extents), [0] * x.ndim, extents
    return x if end == list(x.shape) and not any(begin) and max(stride) == 1 else lax.slice(x, begin, end, stride)


def runs(count: int, step: int, size: int) -> tuple[int, ...]:
    """Return how many elements neighbours read together of each block along the last axis: of so many, ``step`` each.

    Windows that are ``step`` samples apart begin with blocks of so many samples, if the input is taken as such blocks
    with what stands behind the axis, ``size`` elements a sample; those of neighbouring taps, or outputs, follow each
    other in memory. Nothing if blocks gain nothing.
    """
    return tuple(size * min(step, count - start) for start in range(0, count, step)) if min(count, step) > 1 else ()


def in_blocks(problem: Problem, step: int, blocks: int) -> Problem:
    """Return the problem with an input that is padded along the last axis to so many blocks."""
    spec = problem.spec
    low, _ = spec.padding[-1]
    high = blocks * step - dilated(problem.input_shape[-1], spec.lhs_dilation[-1]) - low
    return dataclasses.replace(problem, spec=dataclasses.replace(spec, padding=(*spec.padding[:-1], (low, high))))


def blocks_of(x: jax.Array, step: int) -> jax.Array:
    """Merge so many samples of the last axis but one with what stands behind them."""
    return x.reshape(*x.shape[:-2], x.shape[-2] // step, step * x.shape[-1])


def side_by_side(
    x: jax.Array,
    layout: Layout,
    axis: int,
    starts: Any,
    shape: Sequence[int],
    steps: Sequence[int],
    widths: Sequence[int] = (),
) -> jax.Array:
    """Gather along an axis the windows that begin at all combinations of positions.

    Of those that begin at each position along the last spatial axis the first so many samples, if ``widths`` are given.
    """
    windows = [window(x, layout, start, shape, steps) for start in itertools.product(*starts)]
    if widths:
        pairs = zip(windows, itertools.cycle(widths), strict=False)
        windows = [each if each.shape[axis] == n else lax.slice_in_dim(each, 0, n, axis=axis) for each, n in pairs]
    return lax.concatenate(windows, axis) if len(windows) > 1 else windows[0]


def positions(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield every index of an array of that shape."""
    return itertools.product(*map(range, shape))


def of_tap(problem: Problem, x: jax.Array, layout: Layout, tap: Sequence[int]) -> jax.Array:
    """Return what one tap reads of the padded input, for all outputs."""
    start = [i * d for i, d in zip(tap, problem.spec.rhs_dilation, strict=True)]
    return window(x, layout, start, problem.output_shape, problem.spec.strides)


def of_tap_alone(problem: Problem, x: jax.Array, layout: Layout, tap: Sequence[int]) -> jax.Array:
    """Return what one tap reads of the input, which is padded for that tap alone; it is not dilated."""
    spec, config = problem.spec, [(0, 0, 0)] * x.ndim
    for axis, where in enumerate(layout.spatial):
        begin = tap[axis] * spec.rhs_dilation[axis] - spec.padding[axis][0]
        extent = dilated(problem.output_shape[axis], spec.strides[axis])
        config[where] = (-begin, begin + extent - x.shape[where], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    return window(x, layout, (0,) * spec.ndim, problem.output_shape, spec.strides)


def of_output(problem: Problem, x: jax.Array, layout: Layout, output: Sequence[int]) -> jax.Array:
    """Return what one output reads of the padded input, with all taps."""
    start = [i * s for i, s in zip(output, problem.spec.strides, strict=True)]
    return window(x, layout, start, problem.kernel_shape, problem.spec.rhs_dilation)


def zeros_like(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return zeros that, inside `jax.shard_map`, vary over the mesh axes that an array varies over."""
    zeros = jnp.zeros(shape, array.dtype)
    varying = jax.typeof(array).manual_axis_type.varying
    return lax.pcast(zeros, tuple(sorted(varying)), to="varying") if varying else zeros


def only_new(array: jax.Array, axis: int, start: jax.Array, first: jax.Array) -> jax.Array:
    """Return what begins at ``start`` with zeros in front of ``first``, which another chunk has summed already."""
    return jnp.where(lax.broadcasted_iota(start.dtype, array.shape, axis) + start >= first, array, 0)
