"""Axes of a single sample, tap or output: taken out, and convolved along the others only.

A sample sits at ``i l + low`` of the padded input, and the output m reads the tap k there if

    m s + k d = i l + low      (stride s, dilations l of the input and d of the kernel)

Where an axis has one sample, one output or one tap, one of the three is 0, and to each of the others belongs at most
one of the third, at equal distances. So the sum over that axis is no sum, or one over pairs::

    one sample    y[m] = x[0] w[(low - m s) / d]       an outer product: taps become output channels
    one output    y[0] = sum_i x[i] w[(i l + low) / d] an inner product: samples and taps become input channels
    one tap       y[m] = x[(m s - low) / l] w[0]       samples and outputs become the batch

and the remaining axes are convolved as channels or batches of those. Outputs that meet no sample are zero, and are
computed from nothing. The gradients of each are of these forms again. With no axis left it is one matrix product.
Whatever algorithm is best for the other axes computes it.

Cost: that of the convolution inside, and one more pass over what changes its axes. The definition, which multiplies
every tap by padding for each output of a single sample, does as many times more work as the kernel is long.

Error: that of the algorithm inside, of a sum with fewer terms.

Source: the definition; which of the pairs meet is the equation of the adjoints (see `jaxconv._spec`).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._cost import Cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, held_without


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Every pair (p, q) with ``p a = q b + c``: `count` of them, from `first` on, `steps` apart."""

    first: tuple[int, int]
    steps: tuple[int, int]
    count: int

    @classmethod
    def of(cls, sizes: tuple[int, int], a: int, b: int, c: int) -> "_Pairs":
        """Find them with ``0 <= p < sizes[0]`` and ``0 <= q < sizes[1]``."""
        common = math.gcd(a, b)
        steps = b // common, a // common
        start = max(-(-c // a), 0)
        p = next((p for p in range(start, start + steps[0]) if (p * a - c) % b == 0), sizes[0])
        q = (p * a - c) // b
        count = max(min((sizes[0] - 1 - p) // steps[0], (sizes[1] - 1 - q) // steps[1]) + 1, 0)
        return cls((p, q), steps, count)

    def take(self, array: jax.Array, side: int, axis: int) -> jax.Array:
        """Slice what the pairs have of one side."""
        first, step = self.first[side], self.steps[side]
        return lax.slice_in_dim(array, first, first + (self.count - 1) * step + 1, step, axis)


@dataclasses.dataclass(frozen=True)
class _Taken:
    """The axes that are taken out, by what they have one of, with their pairs.

    Pairs of an axis with one sample are (output, tap of the reversed kernel), those of one with one output (tap,
    sample), and those of one with one tap (output, sample).
    """

    sample: dict[int, _Pairs]
    output: dict[int, _Pairs]
    tap: dict[int, _Pairs]

    @classmethod
    def of(cls, problem: Problem) -> "_Taken":
        taken, spec = cls({}, {}, {}), problem.spec
        lengths = zip(problem.input_shape, problem.kernel_shape, problem.output_shape, strict=True)
        for axis, (samples, taps, outputs) in enumerate(lengths):
            stride, (low, _) = spec.strides[axis], spec.padding[axis]
            lhs_dilation, rhs_dilation = spec.lhs_dilation[axis], spec.rhs_dilation[axis]
            if samples == 1:
                reach = (taps - 1) * rhs_dilation
                taken.sample[axis] = _Pairs.of((outputs, taps), stride, rhs_dilation, low - reach)
            elif outputs == 1:
                taken.output[axis] = _Pairs.of((taps, samples), rhs_dilation, lhs_dilation, low)
            elif taps == 1:
                taken.tap[axis] = _Pairs.of((outputs, samples), stride, lhs_dilation, low)
        return taken

    @property
    def pairs(self) -> dict[int, _Pairs]:
        return self.sample | self.output | self.tap

    def rest(self, values: Sequence) -> tuple:
        """Return what belongs to the axes that remain."""
        return tuple(value for axis, value in enumerate(values) if axis not in self.pairs)


def _counts(pairs: dict[int, _Pairs]) -> tuple[int, ...]:
    return tuple(each.count for each in pairs.values())


def supports(problem: Problem) -> str | None:
    """Return the reason if every axis has several samples, taps and outputs, or none of those meet, else None."""
    pairs = _Taken.of(problem).pairs
    if not pairs:
        return "every axis has several samples, taps and outputs"
    if not all(_counts(pairs)):
        return "no tap meets a sample"
    return None


def inner(problem: Problem) -> Problem:
    """Return the convolution along the other axes."""
    taken, spec = _Taken.of(problem), problem.spec
    return dataclasses.replace(
        problem,
        batch=problem.batch * math.prod(_counts(taken.tap)),
        in_channels=problem.in_channels * math.prod(_counts(taken.output)),
        out_channels=problem.out_channels * math.prod(_counts(taken.sample)),
        input_shape=taken.rest(problem.input_shape),
        kernel_shape=taken.rest(problem.kernel_shape),
        spec=dataclasses.replace(
            spec,
            strides=taken.rest(spec.strides),
            padding=taken.rest(spec.padding),
            lhs_dilation=taken.rest(spec.lhs_dilation),
            rhs_dilation=taken.rest(spec.rhs_dilation),
            held=held_without(spec.orders, taken.pairs),
        ),
    )


def cost(problem: Problem) -> Cost:
    """Return the cost of moving axes, without the convolution inside."""
    taken, core = _Taken.of(problem), inner(problem)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    moves = _moves(problem, taken)
    # Samples that no output reads are left out, and zeros are put where outputs read nothing.
    left_out = any(pairs.count < problem.input_shape[axis] for axis, pairs in (taken.output | taken.tap).items())
    zeros = any(pairs.count < problem.output_shape[axis] for axis, pairs in (taken.sample | taken.tap).items())
    copied = itemsize * (math.prod(core.x_shape) * left_out + math.prod(problem.y_shape) * zeros)
    scratch = copied + itemsize * moves["moved"]
    terms = {"call": 1, "bytes": 2 * copied, "fresh": fresh(scratch), **moves}
    return Cost(0, 0, 2 * scratch, scratch, 0.0, terms)


def _moves(problem: Problem, taken: _Taken) -> dict[str, float]:
    """Return what is moved between what the caller holds, in his layout, and the operands and result inside."""
    counts = []
    for shape, order, inner_order, behind in zip(
        (problem.x_shape, problem.w_shape, problem.y_shape),
        problem.spec.orders,
        inner(problem).spec.orders,
        ((taken.tap, taken.output), (taken.sample, taken.output), (taken.tap, taken.sample)),
        strict=True,
    ):
        pairs = {3 + axis: each.count for axis, each in taken.pairs.items()}
        sizes = [pairs.get(axis, size) for axis, size in enumerate(shape)]
        merged = [axis for part in _parts(inner_order, taken, *behind) for axis in part]
        counts.append(_windows.moves(sizes, [axis for axis in order if axis in merged], merged))
    return _windows.total_moves(*counts)


def _parts(order: Sequence[int], taken: _Taken, behind_1: Iterable[int], behind_2: Iterable[int]) -> list[list[int]]:
    """Return what each axis of the inner problem consists of, in an order of those: canonical axes of the problem.

    Spatial axes may be merged with the batch or output channels, axis 1, and with the channels, axis 2.
    """
    rest = [3 + axis for axis in taken.rest(range(len(order) - 3 + len(taken.pairs)))]
    behind = {1: [3 + axis for axis in behind_1], 2: [3 + axis for axis in behind_2]}
    return [[axis, *behind.get(axis, [])] if axis < 3 else [rest[axis - 3]] for axis in order]


def _merged(operand: jax.Array, order: Sequence[int], parts: list[list[int]], shape: Sequence[int]) -> jax.Array:
    """Merge the parts of each axis of the inner problem, in an order of those; they have the shape in canonical order.

    Axes that are no part have length 1.
    """
    axes = [axis for part in parts for axis in part]
    left = [axis for axis in range(operand.ndim) if axis not in axes]
    operand = operand.transpose(*axes, *left).reshape([shape[axis] for axis in order])
    return operand.transpose([order.index(axis) for axis in range(operand.ndim)])


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves along the other axes."""
    taken, core = _Taken.of(problem), inner(problem)
    flipped = taken.sample if problem.spec.convention == "correlation" else taken.output
    w = lax.rev(w, tuple(3 + axis for axis in flipped))
    for axis, pairs in taken.pairs.items():
        if axis not in taken.sample:
            x = pairs.take(x, 1, 3 + axis)
        if axis not in taken.tap:
            w = pairs.take(w, int(axis in taken.sample), 3 + axis)
    # An axis that is merged stands behind what it is merged with, so that devices may share that out; all in the order
    # in which the caller has them, so that XLA sees what is left of its transpositions.
    x_order, w_order, y_order = core.spec.orders
    x = _merged(x, x_order, _parts(x_order, taken, taken.tap, taken.output), core.x_shape)
    w = _merged(w, w_order, _parts(w_order, taken, taken.sample, taken.output), core.w_shape)
    y = compute(core, x, w).transpose(y_order)
    sizes = list(problem.y_shape)
    for axis, pairs in (taken.sample | taken.tap).items():
        sizes[3 + axis] = pairs.count
    stands = [axis for part in _parts(y_order, taken, taken.tap, taken.sample) for axis in part]
    stands += [3 + axis for axis in taken.output]
    y = y.reshape([sizes[axis] for axis in stands])
    y = y.transpose([stands.index(axis) for axis in range(y.ndim)])
    config = [(0, 0, 0)] * y.ndim
    for axis, pairs in (taken.sample | taken.tap).items():
        first, step = pairs.first[0], pairs.steps[0]
        after = problem.output_shape[axis] - first - (pairs.count - 1) * step - 1
        config[3 + axis] = (first, after, step - 1)
    return lax.pad(y, jnp.zeros((), y.dtype), config)
