"""Polyphase decomposition: transposed, dilated and strided convolution as an ordinary one of phases.

Where the *input* is dilated by L, the outputs of each residue modulo L meet only every L-th tap. With ``low = a L + b``
and ``m = L q + b - r``::

    y[m] = sum_t w[L t + r] x[q + t - a],       r = 0 ... L - 1

so that the phases of the kernel are L kernels of an ordinary convolution, whose results are interleaved ("sub-pixel
convolution"). Where the *kernel* is dilated by D, under a stride s with ``d = gcd(s, D)`` and ``m = (D / d) q + r``::

    y[m] = sum_k w[k] x[D (q s / d + k) + r s],  r = 0 ... D / d - 1

so that the phases of the input are a larger batch of an ordinary convolution of stride ``s / d``. Where there is a
*stride* of s and nothing is dilated, and the taps are a multiple of s, those phases are channels::

    y[m] = sum_r sum_t w[t s + r] x[(m + t) s + r],     r = 0 ... s - 1

so that windows that do not overlap, as those of patches, need not be gathered. The gradients of strided, transposed and
dilated convolutions are of these forms. Whatever algorithm is best for the ordinary convolution computes it, with no
multiplication by a zero inserted between samples.

Where the taps are no multiple of L, some phases of the kernel have one tap less, and end with a zero, which meets
samples that the definition does not read. That does no harm unless such a sample is infinite or not a number. So the
input is looked at, which has fewer elements than the result: if they are not all finite, XLA's convolution computes the
result once more, by the definition.

Cost: that of the ordinary convolution, one more pass over what is split into phases or put together from them, and one
over an input that is looked at.

Error: that of the algorithm inside, of a sum with fewer terms.

Source: P. P. Vaidyanathan, *Multirate Systems and Filter Banks*, 1993, section 4.3; W. Shi et al., *Is the
deconvolution layer the same as a convolutional layer?*, arXiv:1609.07009.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _finite, _windows
from jaxconv._cost import Cost, fresh
from jaxconv._dtypes import accumulation_dtype, is_inexact
from jaxconv._spec import Problem

# A canonical axis, and which part of it: its samples, or phases of them that join another axis (batch or output
# channels, and channels).
_Label: TypeAlias = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """How one axis is taken apart: into phases of the kernel (input dilated), the input (kernel dilated) or both."""

    size: int
    taps: int
    stride: int
    padding: tuple[int, int]
    kernel_phases: int = 1
    input_phases: int = 1
    channel_phases: int = 1
    outputs: int = 0
    crop: int = 0


def _axes(problem: Problem) -> list[_Axis]:
    spec = problem.spec
    axes = []
    for size, taps, length, stride, (low, high), lhs_dilation, rhs_dilation in zip(
        problem.input_shape,
        problem.kernel_shape,
        problem.output_shape,
        spec.strides,
        spec.padding,
        spec.lhs_dilation,
        spec.rhs_dilation,
        strict=True,
    ):
        if lhs_dilation > 1:
            front, rest = divmod(low, lhs_dilation)
            inner_taps = -(-taps // lhs_dilation)
            count = max(-(-(length - 1 - rest) // lhs_dilation), 0) + 1
            pads = (front, count + inner_taps - 1 - size - front)
            crop = lhs_dilation - 1 - rest
            axes.append(_Axis(size, inner_taps, 1, pads, kernel_phases=lhs_dilation, outputs=count, crop=crop))
        elif rhs_dilation > 1:
            common = math.gcd(stride, rhs_dilation)
            phases, step = rhs_dilation // common, stride // common
            count = -(-length // phases)
            inner_size = (count - 1) * step + taps
            axes.append(_Axis(inner_size, taps, step, (0, 0), input_phases=phases, outputs=count))
        elif _is_in_patches(taps, stride):
            inner_taps = taps // stride
            axes.append(_Axis(length + inner_taps - 1, inner_taps, 1, (0, 0), channel_phases=stride, outputs=length))
        else:
            axes.append(_Axis(size, taps, stride, (low, high), outputs=length))
    return axes


def _is_in_patches(taps: int, stride: int) -> bool:
    return stride > 1 and taps % stride == 0


def supports(problem: Problem) -> str | None:
    """Return the reason if there are no phases, or an axis is dilated in a way that is not covered, else None."""
    spec = problem.spec
    if all(d == 1 for d in (*spec.lhs_dilation, *spec.rhs_dilation)):
        if all(s == 1 for s in spec.strides):
            return "nothing is dilated"
        if not any(map(_is_in_patches, problem.kernel_shape, spec.strides)):
            return f"nothing is dilated, and strides {spec.strides} do not divide the taps {problem.kernel_shape}"
    for axis, (stride, lhs_dilation, rhs_dilation) in enumerate(
        zip(spec.strides, spec.lhs_dilation, spec.rhs_dilation, strict=True)
    ):
        if lhs_dilation > 1 and (stride > 1 or rhs_dilation > 1):
            return (
                f"on axis {axis} the input is dilated (by {lhs_dilation}) and so is the kernel (by {rhs_dilation}), or "
                f"there is a stride ({stride})"
            )
    return None


def inner(problem: Problem) -> Problem:
    """Return the ordinary convolution that remains."""
    axes = _axes(problem)
    ones = (1,) * len(axes)
    return dataclasses.replace(
        problem,
        batch=problem.batch * math.prod(axis.input_phases for axis in axes),
        in_channels=problem.in_channels * math.prod(axis.channel_phases for axis in axes),
        out_channels=problem.out_channels * math.prod(axis.kernel_phases for axis in axes),
        input_shape=tuple(axis.size for axis in axes),
        kernel_shape=tuple(axis.taps for axis in axes),
        spec=dataclasses.replace(
            problem.spec,
            strides=tuple(axis.stride for axis in axes),
            padding=tuple(axis.padding for axis in axes),
            lhs_dilation=ones,
            rhs_dilation=ones,
            convention="correlation",
        ),
    )


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it merges with phases, so that their devices exchange data."""
    core = inner(problem)
    axes = ("batch", "in_channels", "out_channels")
    return tuple(axis for axis in axes if getattr(core, axis) != getattr(problem, axis))


def _moves(problem: Problem, axes: list[_Axis]) -> dict[str, float]:
    """Return what is moved between what the caller holds, in his layout, and the phases, as terms of a cost."""
    ndim, core = len(axes), inner(problem)
    # Each spatial axis has samples, phases that join the batch or output channels, and phases that join the channels.
    first, second = range(3 + ndim, 3 + 2 * ndim), range(3 + 2 * ndim, 3 + 3 * ndim)
    of_batch, of_kernel = [axis.input_phases for axis in axes], [axis.kernel_phases for axis in axes]
    of_channels = [axis.channel_phases for axis in axes]
    of_items = {1: [*reversed(first), 1], 2: [*second, 2]}
    x_order, w_order, y_order = problem.spec.orders
    counts = []
    for order, whole, shape, phases, parts in (
        (x_order, problem.x_shape, core.x_shape, (*of_batch, *of_channels), of_items),
        (w_order, problem.w_shape, core.w_shape, (*of_kernel, *of_channels), {1: [*first, 1], 2: [*second, 2]}),
        (y_order, problem.y_shape, core.y_shape, (*of_batch, *of_kernel), of_items),
    ):
        sizes = (*whole[:3], *shape[3:], *phases)
        whole_order = [part for axis in order for part in ([axis] if axis < 3 else range(axis, len(sizes), ndim))]
        counts.append(_windows.moves(sizes, whole_order, [part for axis in order for part in parts.get(axis, [axis])]))
    return _windows.total_moves(*counts)


def cost(problem: Problem) -> Cost:
    """Return the cost of taking the operands apart and putting the result together, without the convolution inside."""
    axes, core = _axes(problem), inner(problem)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    patches = core.in_channels != problem.in_channels
    moved = math.prod(core.x_shape) * (patches or core.batch != problem.batch)
    moved += math.prod(core.w_shape) * (core.w_shape != problem.w_shape)
    moved += math.prod(core.y_shape) * (core.y_shape != problem.y_shape)
    bytes_moved = 2 * itemsize * moved
    checks = _meets_more(problem)
    seen = itemsize * math.prod(problem.x_shape) * checks
    terms = {"call": 1, "bytes": bytes_moved, "fresh": fresh(bytes_moved / 2), **_moves(problem, axes)}
    terms |= {"checks": checks, "seen": seen}
    bytes_moved += seen
    return Cost(0, 0, bytes_moved, bytes_moved / 2, 0.0, terms)


def _meets_more(problem: Problem) -> bool:
    """Whether phases of the kernel that end with a zero may meet what is no finite number."""
    steps = zip(problem.kernel_shape, problem.spec.lhs_dilation, strict=True)
    return is_inexact(problem.dtype) and any(taps % step for taps, step in steps)


def _split_kernel(w: jax.Array, axes: list[_Axis], problem: Problem) -> jax.Array:
    """Return w[g, (phases, o), (phases, c), *T], the former in the order in which their outputs follow each other."""
    _, order, _ = problem.spec.orders
    w, labels = w.transpose(order), [(axis, 0) for axis in order]
    if problem.spec.convention == "convolution":
        w = lax.rev(w, tuple(where for where, (axis, _) in enumerate(labels) if axis >= 3))
    for number, axis in enumerate(axes):
        where, phases = labels.index((3 + number, 0)), axis.kernel_phases * axis.channel_phases
        if phases == 1:
            continue
        if missing := axis.taps * phases - w.shape[where]:
            config = [(0, 0, 0)] * w.ndim
            config[where] = (0, missing, 0)
            w = lax.pad(w, jnp.zeros((), w.dtype), config)
        # Either the outputs have phases, or the channels.
        w = w.reshape(*w.shape[:where], axis.taps, phases, *w.shape[where + 1 :])
        if axis.kernel_phases > 1:
            w = lax.rev(w, (where + 1,))
        labels.insert(where + 1, (3 + number, 1 if axis.kernel_phases > 1 else 2))
    core = inner(problem)
    of_outputs, of_channels = ([(3 + number, part) for number in range(len(axes))] for part in (1, 2))
    return _merged(w, labels, order, {1: of_outputs, 2: of_channels}, core.w_shape)


def _split_input(x: jax.Array, axes: list[_Axis], problem: Problem) -> jax.Array:
    """Return x[g, (phases, n), (phases, c), *S], padded on the axes that are split."""
    order, _, _ = problem.spec.orders
    x, labels = x.transpose(order), [(axis, 0) for axis in order]
    for number, axis in enumerate(axes):
        where, phases = labels.index((3 + number, 0)), axis.input_phases * axis.channel_phases
        if phases == 1:
            continue
        dilation, stride = problem.spec.rhs_dilation[number], problem.spec.strides[number]
        low, _ = problem.spec.padding[number]
        # Samples of a phase are so many apart, and phases follow each other so many apart.
        step, offset = (stride, 1) if dilation == 1 else (dilation, stride)
        length = (axis.size - 1) * step + 1
        total = length + (phases - 1) * offset
        if (low, total) != (0, x.shape[where]):
            config = [(0, 0, 0)] * x.ndim
            config[where] = (low, total - low - x.shape[where], 0)
            x = lax.pad(x, jnp.zeros((), x.dtype), config)
        if total == axis.size * phases:
            x = x.reshape(*x.shape[:where], axis.size, phases, *x.shape[where + 1 :])
        else:
            parts = [lax.slice_in_dim(x, r * offset, r * offset + length, step, where) for r in range(phases)]
            x = jnp.stack(parts, where + 1)
        labels.insert(where + 1, (3 + number, 1 if axis.input_phases > 1 else 2))
    of_batch, of_channels = ([(3 + number, part) for number in range(len(axes))] for part in (1, 2))
    return _merged(x, labels, order, {1: of_batch[::-1], 2: of_channels}, inner(problem).x_shape)


def _merged(
    array: jax.Array,
    labels: list[_Label],
    order: Sequence[int],
    fronts: Mapping[int, list[_Label]],
    shape: Sequence[int],
) -> jax.Array:
    """Merge phases with the axes that they stand in front of, to an array that has the shape in canonical order.

    In the order in which the caller has the axes, so that XLA sees what is left of its transpositions.
    """
    stands = [labels.index(each) for axis in order for each in (*fronts.get(axis, ()), (axis, 0)) if each in labels]
    array = array.transpose(stands).reshape([shape[axis] for axis in order])
    return array.transpose([order.index(axis) for axis in range(array.ndim)])


def _join_output(y: jax.Array, axes: list[_Axis], problem: Problem) -> jax.Array:
    """Return y[g, n, o, *M] of y[g, (phases, n), (phases, o), *outputs]."""
    _, _, order = problem.spec.orders
    y = y.transpose(order)
    phases = {1: [(3 + number, 1) for number in reversed(range(len(axes)))], 2: [(3 + n, 2) for n in range(len(axes))]}
    sizes = dict(zip(((axis, 0) for axis in range(y.ndim)), problem.y_shape, strict=True))
    for number, axis in enumerate(axes):
        sizes[3 + number, 0] = axis.outputs
        sizes[3 + number, 1], sizes[3 + number, 2] = axis.input_phases, axis.kernel_phases
    labels = [each for axis in order for each in (*phases.get(axis, ()), (axis, 0))]
    y = y.reshape([sizes[each] for each in labels])
    joined = [[(axis, part) for part in range(3 if axis >= 3 else 1)] for axis in order]
    y = y.transpose([labels.index(each) for parts in joined for each in parts])
    y = y.reshape([math.prod(sizes[each] for each in parts) for parts in joined])
    for number, (axis, length) in enumerate(zip(axes, problem.output_shape, strict=True)):
        where = order.index(3 + number)
        if y.shape[where] > length:
            y = lax.slice_in_dim(y, axis.crop, axis.crop + length, axis=where)
    return y.transpose([order.index(axis) for axis in range(y.ndim)])


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves the phases."""
    axes = _axes(problem)
    y = compute(inner(problem), _split_input(x, axes, problem), _split_kernel(w, axes, problem))
    y = _join_output(y, axes, problem)
    return _finite.or_by_definition(problem, y, x, w, look_at="input") if _meets_more(problem) else y
