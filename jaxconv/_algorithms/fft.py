"""Whole Fourier transforms: kernels comparable to the signal.

The convolution theorem turns ``z = x * w`` into a product, ``Z(f) = X(f) W(f)`` with the channels contracted frequency
by frequency, so that each input and each kernel is transformed once however many pairs of them meet. A correlation is
the convolution with the reversed kernel (for complex data that is ``W(-f)``, not ``conj(W(f))``). Of real data it is
``conj(W(f))``, whose result lies ``taps - 1`` samples earlier on the circle: a kernel has the same transform under both
conventions. So a convolution and its gradients, which toggle that, transform each operand to the same spectrum, which
XLA then computes once: six transforms and not nine, as long as no operand has both several ``n`` and several ``c``.

Only the part of the full convolution that is asked for has to be free of wrap-around, so the transform is as short as
that allows, rounded up to the next length with factors 2, 3, 5 and 7 only: at lengths with a large prime factor an FFT
takes 10 to 40 times longer. Real data take real transforms; axes on which the kernel or the input has length 1 take
none.

Cost: ``5/2 N log2 N`` operations for a real transform of N points (5 N log2 N, complex), for each input, kernel and
output channel, and one complex product for each pair of channels and frequency. XLA on CPU transforms neighbouring rows
together, and a single one up to seven times more slowly: one or two long ones are transformed in two steps
(`jaxconv._algorithms._long_rows`).

Error: relative to the norm, not elementwise, ``||error|| <= O(eps log2 N) ||x|| ||w||`` (Schatzman, *Accuracy of the
discrete Fourier transform and the fast Fourier transform*, SIAM J. Sci. Comput. 17, 1996). One NaN or infinity spreads
over the whole result.
"""

import functools
import itertools
import math
from collections.abc import Collection, Sequence

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _long_rows
from jaxconv._algorithms._once import Call
from jaxconv._algorithms._transforms import flattened
from jaxconv._cost import Cost, fft_error, fresh
from jaxconv._dtypes import accumulation_dtype, is_complex, is_inexact
from jaxconv._spec import Problem, dilated

# How many input channels are contracted in one pass over the spectra.
CHANNELS_AT_A_TIME = 8
# The most axes that one call of XLA's FFT transforms.
MAX_AXES = 3
# XLA's FFT on CPU transforms several rows, or columns, in one register, and in several threads: so many bytes of their
# samples keep both busy.
TOGETHER = 64


def supports(problem: Problem) -> str | None:
    """Return the reason if the data are integers, whose exact sums an FFT cannot promise, else None."""
    if is_inexact(problem.spec.out_dtype):
        return None
    return (
        f"an FFT cannot give exact results for {problem.spec.out_dtype} data; use method='direct', or convert the "
        "inputs to a floating-point dtype"
    )


@functools.lru_cache(maxsize=4096)
def next_fast_length(length: int) -> int:
    """Return the smallest number that is at least ``length`` and has no prime factor above 7."""
    best = 1 << max(length - 1, 0).bit_length()
    sevens = 1
    while sevens < best:
        fives = sevens
        while fives < best:
            threes = fives
            while threes < best:
                candidate = threes << max(-(-length // threes) - 1, 0).bit_length()
                best = min(best, candidate)
                threes *= 3
            fives *= 5
        sevens *= 7
    return best


def _axis_length(size: int, taps: int, first: int, last: int) -> int:
    """Return how long a transform must be for the outputs ``first`` to ``last`` of the full convolution."""
    full = size + taps - 1
    first, last = max(first, 0), min(last, full - 1)
    return next_fast_length(max(size, taps, full - first, last + 1))


def _transform_lengths(problem: Problem) -> dict[int, int]:
    """Map each spatial axis that is transformed to the length of its transform."""
    spec = problem.spec
    lengths = {}
    for axis, (size, taps, length) in enumerate(
        zip(problem.input_shape, problem.kernel_shape, problem.output_shape, strict=True)
    ):
        if size == 1 or taps == 1:
            continue
        support = dilated(taps, spec.rhs_dilation[axis])
        first = support - 1 - spec.padding[axis][0]
        last = first + (length - 1) * spec.strides[axis]
        lengths[axis] = _axis_length(dilated(size, spec.lhs_dilation[axis]), support, first, last)
    if _in_two_steps(problem, lengths):
        ((axis, length),) = lengths.items()
        columns = _long_rows.columns(length)
        lengths[axis] = next_fast_length(-(-length // columns)) * columns
    return lengths


def _in_two_steps(problem: Problem, lengths: dict[int, int]) -> bool:
    """Whether to transform in two steps: a single axis, of real data."""
    if len(lengths) != 1 or is_complex(problem.spec.out_dtype):
        return False
    return max(lengths.values()) >= _long_rows.LONG and max(_counts(problem, lengths)) <= _long_rows.FEW


def _counts(problem: Problem, lengths: Collection[int]) -> tuple[int, int, int]:
    """Return how many inputs, kernels and outputs are transformed along the axes given."""
    inputs = problem.groups * problem.batch * problem.in_channels
    kernels = problem.groups * problem.out_channels * problem.in_channels
    outputs = problem.groups * problem.batch * problem.out_channels
    for axis in set(range(problem.spec.ndim)) - set(lengths):
        inputs *= problem.input_shape[axis]
        kernels *= problem.kernel_shape[axis]
        outputs *= max(problem.input_shape[axis], problem.kernel_shape[axis])
    return inputs, kernels, outputs


def cost_of(
    problem: Problem,
    counts: tuple[int, int, int],
    lengths: Sequence[int],
    multiply_adds: float,
) -> Cost:
    """Return the cost of the transforms of so many inputs, kernels and outputs, and of the product of their spectra."""
    inputs, kernels, outputs = counts
    complex_data = is_complex(problem.spec.out_dtype)
    itemsize, points = accumulation_dtype(problem.spec.out_dtype).itemsize, math.prod(lengths)
    transforms = idle = transform_flops = 0.0
    for count, length in itertools.product(counts, lengths):
        rows = count * points // length
        flops = (5.0 if complex_data else 2.5) * count * points * math.log2(length)
        transforms += rows
        transform_flops += flops
        idle += flops * max(TOGETHER // itemsize / rows - 1, 0)
    bytes_moved = 3 * itemsize * points * (inputs + kernels + outputs)
    # The padded input and its spectrum, those of the kernel beside the latter, all spectra, that of the result and it.
    held = max(2 * inputs, inputs + 2 * kernels, inputs + kernels + outputs, 2 * outputs)
    scratch = itemsize * points * held
    return Cost(
        multiply_adds=multiply_adds,
        transform_flops=transform_flops,
        bytes_moved=bytes_moved,
        scratch=scratch,
        error=fft_error(problem, points),
        terms={
            "call": 1,
            "multiply_adds": multiply_adds,
            "transforms": transforms,
            "transform_flops": transform_flops,
            "transform idle": idle,
            "bytes": bytes_moved,
            "fresh": fresh(scratch, itemsize * math.prod(problem.y_shape)),
        },
    )


def cost(problem: Problem) -> Cost:
    """Return the cost of the transforms and of the product of spectra."""
    lengths = _transform_lengths(problem)
    points, complex_data = math.prod(lengths.values()), is_complex(problem.spec.out_dtype)
    bins = points if complex_data else points // 2 + 1
    counts = _counts(problem, lengths)
    multiply_adds = 4 * counts[2] * problem.in_channels * bins
    sizes = tuple(lengths.values())
    if _in_two_steps(problem, lengths):
        columns = _long_rows.columns(points)
        sizes = (points // columns, columns)
    return cost_of(problem, counts, sizes, multiply_adds)


def _transform(array: jax.Array, lengths: dict[int, int], complex_data: bool, two_steps: bool) -> jax.Array:
    """Transform the spatial axes of array[g, ., ., *S] to the given lengths, the last of them by a real transform."""
    if array.shape[1] == 1 < array.shape[2]:
        # Gradients exchange the two: the transform is the same one only if it is written in the same way.
        return _transform(array.swapaxes(1, 2), lengths, complex_data, two_steps).swapaxes(1, 2)
    config = [(0, 0, 0)] * array.ndim
    for axis, length in lengths.items():
        config[3 + axis] = (0, length - array.shape[3 + axis], 0)
    array = lax.pad(array, jnp.zeros((), array.dtype), config)
    axes = [3 + axis for axis in lengths]
    if two_steps:
        return _long_rows.transform(jnp.moveaxis(array, axes[0], -1))
    array = flattened(jnp.fft.fftn if complex_data else jnp.fft.rfftn, array, axes[-MAX_AXES:])
    for stop in range(len(axes) - MAX_AXES, 0, -MAX_AXES):
        array = flattened(jnp.fft.fftn, array, axes[max(stop - MAX_AXES, 0) : stop])
    return array


def _inverse(array: jax.Array, lengths: dict[int, int], complex_data: bool, two_steps: bool) -> jax.Array:
    axes = [3 + axis for axis in lengths]
    if two_steps:
        return jnp.moveaxis(_long_rows.inverse(array, math.prod(lengths.values())), -1, axes[0])
    for stop in range(len(axes) - MAX_AXES, 0, -MAX_AXES):
        array = flattened(jnp.fft.ifftn, array, axes[max(stop - MAX_AXES, 0) : stop])
    last = jnp.fft.ifftn if complex_data else jnp.fft.irfftn
    return flattened(functools.partial(last, s=list(lengths.values())[-MAX_AXES:]), array, axes[-MAX_AXES:])


def contract(x: jax.Array, w: jax.Array) -> jax.Array:
    """Sum over c of x[g, n, c, *F] w[g, o, c, *F], where an axis of F may have length 1 in one operand.

    Products and sums of whole spectra, a few channels at a time: XLA on CPU multiplies a batch of small complex
    matrices, one for each frequency, 5 to 20 times more slowly.
    """
    channels = x.shape[2]

    def some(first: jax.Array | int, count: int) -> jax.Array:
        left, right = (lax.dynamic_slice_in_dim(operand, first, count, 2) for operand in (x, w))
        return functools.reduce(jnp.add, [left[:, :, None, c] * right[:, None, :, c] for c in range(count)])

    rest = channels % CHANNELS_AT_A_TIME or CHANNELS_AT_A_TIME
    if channels <= CHANNELS_AT_A_TIME:
        return some(0, channels)
    return lax.fori_loop(
        0,
        (channels - rest) // CHANNELS_AT_A_TIME,
        lambda i, total: total + some(rest + i * CHANNELS_AT_A_TIME, CHANNELS_AT_A_TIME),
        some(0, rest),
    )


def _crop(problem: Problem, z: jax.Array) -> jax.Array:
    """Pick the outputs from the full convolution z, which is zero outside of the array."""
    spec = problem.spec
    config, strides = [(0, 0, 0)] * 3, [1] * 3
    for axis, (taps, length, stride) in enumerate(
        zip(problem.kernel_shape, problem.output_shape, spec.strides, strict=True)
    ):
        full = dilated(problem.input_shape[axis], spec.lhs_dilation[axis]) + dilated(taps, spec.rhs_dilation[axis]) - 1
        first = dilated(taps, spec.rhs_dilation[axis]) - 1 - spec.padding[axis][0]
        last = first + (length - 1) * stride
        z = lax.slice_in_dim(z, max(first, 0), min(last + 1, full), axis=3 + axis)
        config.append((max(-first, 0), max(last + 1 - full, 0), 0))
        strides.append(stride)
    z = lax.pad(z, jnp.zeros((), z.dtype), config)
    return lax.slice(z, (0,) * z.ndim, z.shape, strides)


def _dilate(array: jax.Array, dilations: tuple[int, ...]) -> jax.Array:
    if all(dilation == 1 for dilation in dilations):
        return array
    return lax.pad(array, jnp.zeros((), array.dtype), [(0, 0, 0)] * 3 + [(0, 0, d - 1) for d in dilations])


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands."""
    spec = problem.spec
    dtype = accumulation_dtype(spec.out_dtype)
    x, w = _dilate(x.astype(dtype), spec.lhs_dilation), _dilate(w.astype(dtype), spec.rhs_dilation)
    lengths = _transform_lengths(problem)
    complex_data = is_complex(dtype)
    # The axes of the kernel that its spectrum is to reverse; the others are reversed beforehand.
    conjugated = [3 + axis for axis in lengths if spec.convention == "correlation" and not complex_data]
    if spec.convention == "correlation":
        w = lax.rev(w, tuple(axis for axis in range(3, 3 + spec.ndim) if axis not in conjugated))
    if lengths:
        options = lengths, complex_data, once.platform == "cpu" and _in_two_steps(problem, lengths)
        kernel_spectrum = _transform(w, *options)
        if conjugated:
            kernel_spectrum = jnp.conj(kernel_spectrum)
        z = _inverse(contract(_transform(x, *options), kernel_spectrum), *options)
        z = jnp.roll(z, [w.shape[axis] - 1 for axis in conjugated], conjugated)
    else:
        z = contract(x, w)
    return _crop(problem, z).astype(spec.out_dtype)
