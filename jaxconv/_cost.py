"""What running an algorithm takes, and how that becomes seconds."""

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Mapping

import numpy as np

from jaxconv._dtypes import result_rounding, unit_roundoff
from jaxconv._spec import Problem


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an algorithm would do for one problem.

    Attributes
    ----------
    multiply_adds
        Multiply-adds that it performs, real ones (a complex product counts as four).
    transform_flops
        Floating-point operations in Fourier transforms.
    bytes_moved
        Bytes read and written beyond the caches, roughly.
    scratch
        Bytes of temporaries held at the same time, beside operands and result.
    error
        Bound on the error relative to ``|w| * |x|`` (direct) or to its norm (FFT).
    terms
        What the modelled time is a weighted sum of, by name; the weights are measured (see `seconds`).
    """

    multiply_adds: float
    transform_flops: float
    bytes_moved: float
    scratch: float
    error: float
    terms: Mapping[str, float]

    @property
    def work(self) -> float:
        """Arithmetic in multiply-adds, the same on every platform."""
        return self.multiply_adds + self.transform_flops / 2


def direct_error(problem: Problem) -> float:
    """Bound of a sum of N products: (N + 1) eps, and the rounding of a result in half precision."""
    dtype = problem.spec.out_dtype
    return (problem.taps * problem.in_channels + 1) * unit_roundoff(dtype) + result_rounding(dtype)


def direct_cost(
    problem: Problem, *, multiply_adds: float, bytes_moved: float, scratch: float, terms: Mapping[str, float]
) -> Cost:
    """Return the cost of sums of products without a Fourier transform, each call of which takes some time by itself."""
    return Cost(multiply_adds, 0, bytes_moved, scratch, direct_error(problem), {"call": 1, **terms})


def fft_error(problem: Problem, points: int) -> float:
    """Bound of three transforms and a product: about eps (6 log2 N + channels), and the rounding of half precision."""
    dtype = problem.spec.out_dtype
    return unit_roundoff(dtype) * (6 * math.log2(max(points, 2)) + problem.in_channels) + result_rounding(dtype)


# Larger arrays are mapped afresh by the allocator at every call: glibc keeps smaller ones.
_KEPT = 32 * 2**20


def fresh(*sizes: float) -> float:
    """Return the bytes, of arrays of the given sizes in bytes, whose pages have to be mapped at every call."""
    return sum(size for size in sizes if size > _KEPT)


# The columns from which a matrix product runs at its full rate.
_FULL_WIDTH = 16


def idle(multiply_adds: float, columns: int) -> float:
    """Return what a matrix product with fewer columns than fill a register leaves idle, in multiply-adds."""
    return multiply_adds * max(_FULL_WIDTH / columns - 1, 0)


@functools.cache
def _constants(platform: str) -> dict[str, dict[str, dict[str, float]]] | None:
    """Read the constants that were measured on a platform; None if there are none."""
    file = importlib.resources.files("jaxconv") / "_constants" / f"{platform}.json"
    return json.loads(file.read_text())["seconds"] if file.is_file() else None


def is_calibrated(platform: str) -> bool:
    """Whether times on the platform were measured."""
    return _constants(platform) is not None


def seconds(cost: Cost, algorithm: str, platform: str, dtype: np.dtype) -> float:
    """Model the time of an algorithm on a platform.

    On a platform without measurements, or for an algorithm that was never measured, it is the time of the arithmetic,
    at a rate of 1e12 multiply-adds a second.
    """
    tables = _constants(platform)
    if tables is None or algorithm not in tables:
        return 1e-12 * cost.work
    name, factor = _SPEED_CLASS.get(np.dtype(dtype).name, ("float32", 1.0))
    # What no problem measured in the dtype had costs what it does in float32, and nothing if none had it there either.
    weights, others = tables[algorithm].get(name, {}), tables[algorithm]["float32"]
    return factor * sum(weights.get(term, others.get(term, 0.0)) * value for term, value in cost.terms.items())


# Each dtype's constants, and a factor: measured for the first of each kind.
_SPEED_CLASS = {
    "float64": ("float64", 1.0),
    "complex64": ("complex64", 1.0),
    "complex128": ("complex64", 2.0),
    **dict.fromkeys(("bool", "int8", "uint8"), ("int8", 1.0)),
    **dict.fromkeys(("int16", "uint16", "int32", "uint32"), ("int32", 1.0)),
    **dict.fromkeys(("int64", "uint64"), ("int32", 2.0)),
}
