"""Overlap-save: long signals and kernels of hundreds to tens of thousands of taps.

The signal is cut into stretches of ``L`` samples that overlap by ``K - 1``. A circular convolution of length L is right
on all but the first ``K - 1`` samples of a stretch, and the ``L - K + 1`` good ones of all stretches make up the
result. The kernel is transformed once.

Cost: two transforms of L points for every ``L - K + 1`` outputs; L is chosen to make that least, and keeps a stretch in
the cache, where one transform of the whole signal would not be.

Error: relative to the norm within a stretch, ``||error|| <= O(eps log2 L) ||x|| ||w||`` (Schatzman, *Accuracy of the
discrete Fourier transform and the fast Fourier transform*, SIAM J. Sci. Comput. 17, 1996). A NaN or an infinity spreads
over the stretches that contain it.

Source: T. G. Stockham, *High-speed convolution and correlation*, AFIPS Spring Joint Computer Conference, 1966;
Oppenheim and Schafer, *Discrete-Time Signal Processing*, 3rd ed., 2010, section 8.7.3.
"""

import dataclasses
import functools
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _one_axis, fft
from jaxconv._algorithms._transforms import flattened
from jaxconv._cost import Cost
from jaxconv._dtypes import accumulation_dtype, is_complex
from jaxconv._spec import Problem


@functools.lru_cache(maxsize=1024)
def _length(taps: int, outputs: int) -> int:
    """Return the power of two that makes the least work for each good output."""
    shortest = max((2 * (taps - 1)).bit_length(), 6)
    lengths = [1 << p for p in range(shortest, shortest + 5)]

    def work(length: int) -> float:
        good = length - taps + 1
        # The constant stands for the passes over a stretch other than its transforms.
        return -(-outputs // good) * length * (math.log2(length) + 6)

    return min(lengths, key=work)


def _full(problem: Problem) -> int:
    """Return how many outputs there are before the stride skips some (for a one-dimensional problem)."""
    return (problem.outputs - 1) * problem.spec.strides[0] + 1


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel is not the short operand on exactly one axis, or is dilated, else None."""
    reason = fft.supports(problem)
    if reason is not None:
        return reason
    if _one_axis.long_axis(problem) is None:
        return f"needs a kernel with several taps on one axis only, not {problem.kernel_shape}"
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.lhs_dilation != (1,) or flat.spec.rhs_dilation != (1,):
        return "the input or the kernel is dilated"
    length = _length(flat.kernel_shape[0], _full(flat))
    if _full(flat) < length:
        return f"needs more than one stretch of {length} samples, not {_full(flat)} outputs"
    return None


def cost(problem: Problem) -> Cost:
    """Return the cost of the transforms of all stretches and of the product of spectra."""
    flat = _one_axis.one_dimensional(problem)
    length = _length(flat.kernel_shape[0], _full(flat))
    stretches = -(-_full(flat) // (length - flat.kernel_shape[0] + 1))
    complex_data = is_complex(flat.spec.out_dtype)
    inputs = flat.groups * flat.batch * flat.in_channels * stretches
    outputs = flat.groups * flat.batch * flat.out_channels * stretches
    kernels = flat.groups * flat.out_channels * flat.in_channels
    multiply_adds = 4 * outputs * flat.in_channels * (length if complex_data else length // 2 + 1)
    cost = fft.cost_of(problem, (inputs, kernels, outputs), (length,), multiply_adds)
    return dataclasses.replace(cost, terms={**cost.terms, **_one_axis.moves(problem)})


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    dtype = accumulation_dtype(problem.spec.out_dtype)
    x, w = _one_axis.flatten(problem, x.astype(dtype), w.astype(dtype))
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.convention == "correlation":
        w = lax.rev(w, (3,))
    taps, full = flat.kernel_shape[0], _full(flat)
    length = _length(taps, full)
    good = length - taps + 1
    stretches = -(-full // good)
    low, _ = flat.spec.padding[0]
    # Stretches are `length` long and `good` apart: a row of `good` samples and the start of the next one.
    total = (stretches + 1) * good
    x = lax.pad(x, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(low, total - low - x.shape[-1], 0)])
    x = x.reshape(*x.shape[:3], stretches + 1, good)
    x = lax.concatenate([x[..., :-1, :], x[..., 1:, : taps - 1]], 4)
    w = lax.pad(w, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(0, length - taps, 0)])
    if is_complex(dtype):
        spectrum = fft.contract(flattened(jnp.fft.fftn, x, [-1]), flattened(jnp.fft.fftn, w, [-1])[..., None, :])
        y = flattened(jnp.fft.ifftn, spectrum, [-1])
    else:
        spectrum = fft.contract(flattened(jnp.fft.rfftn, x, [-1]), flattened(jnp.fft.rfftn, w, [-1])[..., None, :])
        y = flattened(functools.partial(jnp.fft.irfftn, s=[length]), spectrum, [-1])
    y = y[..., taps - 1 :].reshape(*y.shape[:3], stretches * good)[..., : full : flat.spec.strides[0]]
    return _one_axis.restore(problem, y).astype(problem.spec.out_dtype)
