"""What running an algorithm takes, and how that becomes seconds."""

import dataclasses
import functools
import importlib.resources
import json
import math

import numpy as np

from jaxconv._dtypes import unit_roundoff
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
    scratch
        Bytes of temporaries held at the same time, beside operands and result.
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
    scratch: int
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
            scratch=self.scratch + other.scratch,
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


# What a cost is made of for the model of time; the first stands for each call.
FEATURES = (
    "call",
    "operations",
    "multiply_adds",
    "serial_multiply_adds",
    "transform_flops",
    "bytes",
    "bytes_beyond_cache",
)
# Beyond this many bytes, temporaries come from memory, and are mapped afresh at each call.
CACHE_BYTES = 4e6


def features(cost: Cost) -> tuple[float, ...]:
    """Return the numbers that the modelled time is a weighted sum of, in the order of `FEATURES`."""
    return (
        1.0,
        cost.operations,
        cost.multiply_adds,
        cost.serial_multiply_adds,
        cost.transform_flops,
        cost.bytes_moved,
        max(cost.bytes_moved - CACHE_BYTES, 0.0),
    )


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

    On a platform without measurements it is the time of the arithmetic, at a rate of 1e12 multiply-adds a second.
    """
    tables = _constants(platform)
    if tables is None:
        return 1e-12 * cost.work
    # An algorithm without constants of its own only moves data, as a sum of slices does.
    table = tables.get(algorithm, tables["shift"])
    name, factor = _SPEED_CLASS.get(np.dtype(dtype).name, ("float32", 1.0))
    weights = table.get(name, table["float32"])
    return factor * sum(
        weights.get(feature, 0.0) * value for feature, value in zip(FEATURES, features(cost), strict=True)
    )


# Each dtype's constants, and a factor: measured for the first of each kind.
_SPEED_CLASS = {
    "float64": ("float64", 1.0),
    "complex64": ("complex64", 1.0),
    "complex128": ("complex64", 2.0),
    "int64": ("float64", 1.0),
    "uint64": ("float64", 1.0),
}
