"""What running an algorithm takes, and how that becomes seconds."""

import dataclasses
import math

import numpy as np

from jaxconv._dtypes import is_complex, unit_roundoff
from jaxconv._spec import Problem


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an algorithm would do for one problem.

    Attributes
    ----------
    multiply_adds
        Multiply-adds that it performs (a complex one counts as four where that is how it is done).
    bytes_moved
        Bytes read and written beyond the caches, roughly.
    operations
        Separate passes that XLA starts.
    error
        Bound on the error relative to ``|w| * |x|`` (direct) or to its norm (FFT).
    transform_flops
        Floating-point operations in Fourier transforms.
    serial_multiply_adds
        Further multiply-adds that XLA on CPU does one at a time: reductions to few numbers, grouped convolutions.
    """

    multiply_adds: int
    bytes_moved: int
    operations: int
    error: float
    transform_flops: float = 0.0
    serial_multiply_adds: int = 0

    @property
    def work(self) -> float:
        """Arithmetic operations in multiply-adds, the same on every platform."""
        return self.multiply_adds + self.serial_multiply_adds + self.transform_flops / 2

    def __add__(self, other: "Cost") -> "Cost":
        """Cost of one after the other."""
        return Cost(
            multiply_adds=self.multiply_adds + other.multiply_adds,
            bytes_moved=self.bytes_moved + other.bytes_moved,
            operations=self.operations + other.operations,
            error=self.error + other.error,
            transform_flops=self.transform_flops + other.transform_flops,
            serial_multiply_adds=self.serial_multiply_adds + other.serial_multiply_adds,
        )


def direct_error(problem: Problem) -> float:
    """Bound of a sum of products: (N + 1) eps."""
    return (problem.taps * problem.in_channels + 1) * unit_roundoff(problem.spec.out_dtype)


def fft_error(problem: Problem, points: int) -> float:
    """Bound of three transforms and a product: about eps (6 log2 N + channels)."""
    return unit_roundoff(problem.spec.out_dtype) * (6 * math.log2(max(points, 2)) + problem.in_channels)


def is_calibrated(platform: str) -> bool:
    """Whether times on the platform were measured."""
    return platform == "cpu"


def seconds(cost: Cost, algorithm: str, platform: str, dtype: np.dtype) -> float:
    """Model the time of an algorithm on a platform."""
    del algorithm, platform
    width = 2.0 if is_complex(dtype) else 1.0
    width *= np.dtype(dtype).itemsize / 4
    return (
        1e-6 * cost.operations
        + width * (2e-11 * cost.multiply_adds + 4e-10 * cost.serial_multiply_adds + 1e-10 * cost.transform_flops)
        + 1e-10 * cost.bytes_moved
    )
