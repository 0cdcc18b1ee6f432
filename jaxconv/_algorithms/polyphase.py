"""Polyphase decomposition: transposed and dilated convolution without a multiplication by an inserted zero.

Where the *input* is dilated by L, the outputs of each residue modulo L meet only every L-th tap. With ``low = a L + b``
and ``m = L q + b - r``::

    y[m] = sum_t w[L t + r] x[q + t - a],       r = 0 ... L - 1

so that the phases of the kernel are L kernels of an ordinary convolution, whose results are interleaved ("sub-pixel
convolution"). Where the *kernel* is dilated by D, under a stride s with ``d = gcd(s, D)`` and ``m = (D / d) q + r``::

    y[m] = sum_k w[k] x[D (q s / d + k) + r s],  r = 0 ... D / d - 1

so that the phases of the input are a larger batch of an ordinary convolution of stride ``s / d``. The gradients of
strided, transposed and dilated convolutions are of these forms. Whatever algorithm is best for the ordinary convolution
computes it.

Cost: that of the ordinary convolution, and one more pass over the input (dilated kernel) or the output (dilated input).

Error: that of the algorithm inside, of a sum with fewer terms.

Source: P. P. Vaidyanathan, *Multirate Systems and Filter Banks*, 1993, section 4.3; W. Shi et al., *Is the
deconvolution layer the same as a convolutional layer?*, arXiv:1609.07009.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._cost import Cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem


@dataclasses.dataclass(frozen=True)
class _Axis:
    """How one axis is taken apart: ``kernel_phases`` (input dilated) or ``input_phases`` (kernel dilated) above 1."""

    size: int
    taps: int
    stride: int
    padding: tuple[int, int]
    kernel_phases: int = 1
    input_phases: int = 1
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
        else:
            axes.append(_Axis(size, taps, stride, (low, high), outputs=length))
    return axes


def supports(problem: Problem) -> str | None:
    """Return the reason if nothing is dilated, or an axis is in a way that is not covered, else None."""
    spec = problem.spec
    if all(d == 1 for d in (*spec.lhs_dilation, *spec.rhs_dilation)):
        return "nothing is dilated"
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
    return tuple(axis for axis in ("batch", "out_channels") if getattr(core, axis) != getattr(problem, axis))


def cost(problem: Problem) -> Cost:
    """Return the cost of taking the operands apart and putting the result together, without the convolution inside."""
    core = inner(problem)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    moved = math.prod(core.y_shape)
    if core.batch != problem.batch:
        moved += math.prod(core.x_shape)
    bytes_moved = 2 * itemsize * moved
    terms = {"call": 1, "bytes": bytes_moved, "fresh": fresh(bytes_moved / 2)}
    return Cost(0, 0, bytes_moved, bytes_moved / 2, 0.0, terms)


def _split_kernel(w: jax.Array, axes: list[_Axis]) -> jax.Array:
    """Return w[g, (phases, o), c, *T], the phases in the order in which their outputs follow each other."""
    ndim = len(axes)
    config = [(0, 0, 0)] * 3
    shape, phase_axes, tap_axes = list(w.shape[:3]), [], []
    for axis in axes:
        phases = axis.kernel_phases
        config.append((0, axis.taps * phases - w.shape[len(config)], 0))
        tap_axes.append(len(shape))
        phase_axes.append(len(shape) + 1)
        shape += [axis.taps, phases]
    w = lax.pad(w, jnp.zeros((), w.dtype), config).reshape(shape)
    w = lax.rev(w, phase_axes).transpose(0, *phase_axes, 1, 2, *tap_axes)
    return w.reshape(w.shape[0], math.prod(w.shape[1 : 2 + ndim]), *w.shape[2 + ndim :])


def _split_input(x: jax.Array, axes: list[_Axis], problem: Problem) -> jax.Array:
    """Return x[g, (phases, n), c, *S], padded on the axes that are split."""
    for number, axis in enumerate(axes):
        dilation, stride = problem.spec.rhs_dilation[number], problem.spec.strides[number]
        if dilation == 1:
            continue
        where = 3 + number
        low, _ = problem.spec.padding[number]
        length = (axis.size - 1) * dilation + 1
        total = length + (axis.input_phases - 1) * stride
        config = [(0, 0, 0)] * x.ndim
        config[where] = (low, total - low - x.shape[where], 0)
        x = lax.pad(x, jnp.zeros((), x.dtype), config)
        phases = [
            lax.slice_in_dim(x, r * stride, r * stride + length, dilation, where) for r in range(axis.input_phases)
        ]
        # The phases of later axes come to stand in front of those of earlier ones.
        x = lax.concatenate(phases, 1)
    return x


def _join_output(y: jax.Array, axes: list[_Axis], problem: Problem) -> jax.Array:
    ndim = len(axes)
    input_phases = [axis.input_phases for axis in reversed(axes)]
    kernel_phases = [axis.kernel_phases for axis in axes]
    y = y.reshape(problem.groups, *input_phases, problem.batch, *kernel_phases, problem.out_channels, *y.shape[3:])
    batch, channel = 1 + ndim, 2 + 2 * ndim
    order = [0, batch, channel]
    for number in range(ndim):
        order += [channel + 1 + number, ndim - number, batch + 1 + number]
    y = y.transpose(order).reshape(
        problem.groups,
        problem.batch,
        problem.out_channels,
        *(axis.outputs * axis.input_phases * axis.kernel_phases for axis in axes),
    )
    for number, (axis, length) in enumerate(zip(axes, problem.output_shape, strict=True)):
        y = lax.slice_in_dim(y, axis.crop, axis.crop + length, axis=3 + number)
    return y


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves the phases."""
    axes = _axes(problem)
    if problem.spec.convention == "convolution":
        w = lax.rev(w, tuple(range(3, w.ndim)))
    y = compute(inner(problem), _split_input(x, axes, problem), _split_kernel(w, axes))
    return _join_output(y, axes, problem)
