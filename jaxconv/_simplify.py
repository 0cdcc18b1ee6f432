"""Problems in their simplest equivalent form, which is what algorithms and the planner see."""

import dataclasses
import math

from jaxconv._spec import Problem, dilated


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which parts of the canonical operands a simplified problem reads: a slice for each spatial axis."""

    x: tuple[slice, ...]
    w: tuple[slice, ...]


def simplify(problem: Problem) -> tuple[Problem, Parts]:
    """Rewrite a problem in its simplest equivalent form, without negative padding and with little that is never read.

    - Negative padding becomes a crop of the input (XLA on CPU reads outside the array for some negative paddings).
    - Taps that only ever meet padding are cropped, and so is input that no output reads, except what a stride leaves
      over at the end of an axis.
    - Strides and dilations that have no effect (one output, one tap, one sample) become 1. Where those that remain have
      a common factor, only every so many samples are read: the input is sliced, and both are divided by it.
    - Orders that differ from the canonical one in axes of length 1 alone are that one.

    Parameters
    ----------
    problem
        A problem with static, non-empty shapes.

    Returns
    -------
    problem, parts
        The equivalent problem, and what it reads of the operands. The new problem is `empty` if no output reads any
        input.
    """
    spec = problem.spec
    axes = [
        _simplify_axis(*axis)
        for axis in zip(
            problem.input_shape,
            problem.kernel_shape,
            problem.output_shape,
            spec.strides,
            (low for low, _ in spec.padding),
            spec.lhs_dilation,
            spec.rhs_dilation,
            strict=True,
        )
    ]
    simple = dataclasses.replace(
        spec,
        strides=tuple(axis.stride for axis in axes),
        padding=tuple(axis.padding for axis in axes),
        lhs_dilation=tuple(axis.lhs_dilation for axis in axes),
        rhs_dilation=tuple(axis.rhs_dilation for axis in axes),
    )
    kernel = tuple(axis.taps for axis in axes)
    if spec.convention == "convolution":
        kernel = tuple(
            slice(taps - part.stop, taps - part.start) for taps, part in zip(problem.kernel_shape, kernel, strict=True)
        )
    parts = Parts(tuple(axis.samples for axis in axes), kernel)
    simplified = dataclasses.replace(
        problem,
        input_shape=tuple(len(range(*part.indices(part.stop))) for part in parts.x),
        kernel_shape=tuple(part.stop - part.start for part in parts.w),
        spec=simple,
    )
    if spec.held is not None and problem.static and simplified.held_canonically:
        simplified = dataclasses.replace(simplified, spec=dataclasses.replace(simple, held=None))
    return simplified, parts


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis of a simplified problem, and the samples and taps that it reads (of the correlation's kernel)."""

    stride: int
    padding: tuple[int, int]
    lhs_dilation: int
    rhs_dilation: int
    samples: slice
    taps: slice


def _simplify_axis(
    size: int, taps: int, length: int, stride: int, low: int, lhs_dilation: int, rhs_dilation: int
) -> _Axis:
    stride = 1 if length == 1 else stride
    # The tap k meets the padded input at k * rhs_dilation and at what is a multiple of the stride beyond, the last of
    # them `reach` beyond; the samples sit at `low` to `end`.
    reach, end = (length - 1) * stride, low + dilated(size, lhs_dilation) - 1
    first = min(max(-((reach - low) // rhs_dilation), 0), taps)
    last = min(max(end // rhs_dilation + 1, first), taps)
    taps, low = last - first, low - first * rhs_dilation
    rhs_dilation = 1 if taps <= 1 else rhs_dilation
    read = dilated(length, stride) + dilated(taps, rhs_dilation) - 1  # of the padded input
    start = max(-(low // lhs_dilation), 0)
    low += start * lhs_dilation
    # The sample i of what is left sits at low + i * lhs_dilation, and is read if that is below `read`.
    stop = min(size, start + max(-((low - read) // lhs_dilation), 0))
    start = min(start, stop)
    step = math.gcd(0 if length == 1 else stride, 0 if taps <= 1 else rhs_dilation) or 1
    if lhs_dilation == 1 and step > 1:
        # Reading happens at multiples of `step` of the padded input.
        skipped = -low % step
        start, low = min(start + skipped, stop), (low + skipped) // step
        stride, rhs_dilation, read = max(stride // step, 1), max(rhs_dilation // step, 1), (read - 1) // step + 1
    else:
        step, padded = 1, low + dilated(size, lhs_dilation)
        if 0 == start < stop and read < padded < read + stride:
            # A crop would copy the rest: what is left behind the last output stays where it is.
            stop, read = size, padded
    size = -(-(stop - start) // step)
    lhs_dilation = 1 if size <= 1 else lhs_dilation
    return _Axis(
        stride,
        (low, read - low - dilated(size, lhs_dilation)),
        lhs_dilation,
        rhs_dilation,
        slice(start, stop, step),
        slice(first, last),
    )
