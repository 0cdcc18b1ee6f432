"""The table of problems that every transformation is tested on."""

from __future__ import annotations

import dataclasses
import functools
import zlib

import ml_dtypes
import numpy as np

from . import oracle

CONVENTIONS = ("correlation", "convolution")


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes and geometry of one problem: ``x[g, n, c, *space]`` and ``w[g, o, c, *taps]``.

    ``vanishes`` marks the few problems whose result or gradients are empty or exactly zero; tests assert that all
    others are not, so that no comparison passes because both sides are zero.
    """

    name: str
    space: tuple[int, ...]
    taps: tuple[int, ...]
    strides: tuple[int, ...] | int = 1
    padding: tuple[tuple[int, int], ...] | int = 0
    lhs_dilation: tuple[int, ...] | int = 1
    rhs_dilation: tuple[int, ...] | int = 1
    g: int = 1
    n: int = 1
    c: int = 1
    o: int = 1
    vanishes: bool = False

    def __post_init__(self) -> None:
        rank = len(self.space)
        for field in ("strides", "lhs_dilation", "rhs_dilation"):
            value = getattr(self, field)
            object.__setattr__(self, field, (value,) * rank if isinstance(value, int) else value)
        if isinstance(self.padding, int):
            object.__setattr__(self, "padding", ((self.padding, self.padding),) * rank)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.g, self.n, self.c, *self.space)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.g, self.o, self.c, *self.taps)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.g, self.n, self.o, *oracle.output_shape(self.space, self.taps, self.geometry()))

    @property
    def options(self) -> dict:
        """Keyword arguments of ``jaxconv._ops.conv``, without convention and method."""
        names = ("strides", "padding", "lhs_dilation", "rhs_dilation")
        return {name: getattr(self, name) for name in names}

    def geometry(self, convention: str = "correlation") -> oracle.Geometry:
        return oracle.Geometry(**self.options, convention=convention)

    def __str__(self) -> str:
        return self.name


CASES = (
    # One spatial axis.
    Case("1d-plain", (12,), (3,)),
    Case("1d-channels", (9,), (3,), padding=1, n=2, c=3, o=4),
    Case("1d-full-even-kernel", (7,), (4,), padding=3),
    Case("1d-same-even-kernel", (8,), (4,), padding=((1, 2),), c=2),
    Case("1d-one-tap", (5,), (1,), n=2, c=2, o=3),
    Case("1d-one-sample", (1,), (3,), padding=1, c=2),
    Case("1d-one-sample-gaps", (1,), (4,), 2, ((6, 9),), rhs_dilation=3, c=2, o=3),
    Case("1d-one-output", (6,), (6,), n=2),
    Case("1d-one-output-gaps", (4,), (8,), padding=((1, 0),), lhs_dilation=2, n=2, c=2, o=2),
    Case("1d-one-tap-gaps", (4,), (1,), 3, ((1, 2),), lhs_dilation=2, n=2, c=2, o=2),
    Case("1d-long-kernel", (19,), (17,), padding=16),
    Case("1d-kernel-longer-than-input", (3,), (7,), padding=6, o=2),
    Case("1d-prime-lengths", (53,), (13,), padding=((12, 0),)),
    Case("1d-long-signal", (150,), (5,), padding=((3, 4),), c=2, o=2),
    Case("1d-long-signal-stride", (151,), (6,), strides=2, padding=((0, 2),), n=2),
    Case("1d-few-outputs", (38,), (30,), padding=((1, 0),), n=2, c=2),
    Case("1d-few-outputs-of-a-batch", (12,), (11,), padding=1, n=3, o=2),
    Case("1d-few-outputs-stride", (43,), (34,), strides=3),
    Case("1d-stride", (11,), (3,), strides=2, padding=1, n=2, c=2, o=2),
    Case("1d-stride-with-rest", (12,), (3,), strides=4, c=2),
    Case("1d-stride-beyond-kernel", (11,), (2,), strides=3, n=2),
    Case("1d-lhs-dilation", (6,), (4,), padding=2, lhs_dilation=2, c=2, o=2),
    Case("1d-rhs-dilation", (13,), (3,), padding=((3, 1),), rhs_dilation=3, c=2),
    Case("1d-both-dilations", (6,), (4,), padding=2, lhs_dilation=2, rhs_dilation=3),
    Case("1d-stride-and-lhs-dilation", (7,), (3,), strides=2, padding=((2, 1),), lhs_dilation=3),
    Case("1d-stride-and-rhs-dilation", (15,), (3,), strides=3, padding=2, rhs_dilation=2, c=2),
    Case("1d-stride-shares-factor", (25,), (3,), strides=2, padding=3, rhs_dilation=4),
    Case("1d-everything", (8,), (3,), 2, ((-1, 3),), 3, 2, g=2, n=2, c=2, o=3),
    Case("1d-crop-front", (10,), (3,), padding=((-2, 1),), c=2),
    Case("1d-crop-back", (10,), (3,), padding=((1, -3),)),
    Case("1d-crop-inserted-zeros", (6,), (2,), padding=((-2, -3),), lhs_dilation=3, n=2),
    Case("1d-pad-beyond-kernel", (4,), (2,), padding=((5, 4),)),
    Case("1d-groups", (9,), (3,), padding=1, g=3, n=2, c=2, o=2),
    Case("1d-depthwise", (9,), (4,), padding=((2, 1),), g=4, n=2),
    Case("1d-depthwise-multiplier", (10,), (3,), strides=2, g=3, o=2),
    # Two spatial axes.
    Case("2d-image", (8, 7), (3, 3), padding=1),
    Case("2d-channels", (5, 6), (3, 2), padding=((1, 1), (0, 1)), n=2, c=3, o=4),
    Case("2d-stride", (7, 8), (3, 3), strides=(2, 3), padding=1, n=2, c=2, o=3),
    Case("2d-stride-in-blocks", (6, 15), (2, 5), strides=(1, 3), padding=((0, 1), (2, 0)), n=2, c=2, o=3),
    Case("2d-outputs-in-blocks", (6, 19), (5, 6), padding=((1, 0), (1, 0)), rhs_dilation=(1, 3), n=2, c=2, o=3),
    Case("2d-patches", (7, 9), (4, 3), strides=(2, 3), padding=((1, 2), (0, 0)), n=2, c=2, o=3),
    Case("2d-transposed", (4, 3), (3, 4), padding=((2, 2), (3, 2)), lhs_dilation=2, c=2, o=2),
    Case("2d-atrous", (7, 9), (3, 2), padding=((2, 2), (1, 2)), rhs_dilation=(2, 3), c=2),
    Case("2d-mixed-dilations", (4, 10), (3, 2), (1, 3), ((2, 1), (1, 2)), (2, 1), (1, 2), n=2, o=2),
    Case("2d-everything", (5, 6), (2, 3), (2, 1), ((1, -1), (-2, 3)), (2, 3), (3, 2), g=2, c=2, o=2),
    Case("2d-crop", (6, 8), (2, 3), padding=((-1, -1), (-2, 0)), n=2),
    # XLA on the CPU read outside of the array here (docs: known wrong results).
    Case("2d-one-tap-crop", (6, 8), (1, 1), padding=((0, 0), (-5, 1)), c=15, o=3),
    Case("2d-flat-axis", (1, 9), (1, 4), padding=((0, 0), (3, 3)), n=2),
    Case("2d-one-by-k", (5, 9), (1, 4), padding=((0, 0), (1, 2)), strides=(2, 1)),
    Case("2d-along-one-axis", (3, 80), (1, 5), strides=(2, 1), padding=((1, 0), (2, 2)), n=2),
    Case("2d-few-outputs-on-one-axis", (30, 3), (24, 1), padding=((0, 0), (1, 1))),
    Case("2d-few-outputs-of-a-batch", (5, 4), (4, 4), padding=((0, 0), (1, 0)), n=3, c=2),
    Case("2d-depthwise", (6, 5), (3, 3), padding=1, g=4, n=2),
    Case("2d-large-kernel", (5, 4), (4, 5), padding=((3, 3), (4, 4))),
    # Other numbers of spatial axes.
    Case("0d", (), (), n=3, c=4, o=5),
    Case("2d-nine-groups", (4, 5), (2, 3), padding=1, g=9, n=2, c=2, o=3),
    Case("0d-groups", (), (), g=2, n=2, c=3, o=2),
    Case("3d-plain", (4, 5, 3), (2, 3, 2), padding=((1, 0), (1, 1), (0, 0)), c=2, o=2),
    # Rows so short that sums run on across them, with what stands on the other axes.
    Case("3d-many-taps", (5, 6, 7), (3, 3, 4), padding=((1, 1), (2, 2), (3, 3)), n=2),
    Case("3d-many-taps-strided", (7, 4, 9), (2, 3, 4), (2, 1, 1), ((1, 1), (1, 1), (2, 2)), (1, 2, 1), (2, 1, 2), g=2),
    Case("3d-everything", (4, 3, 4), (2, 2, 1), (1, 2, 1), ((1, 1), (0, 2), (-1, 0)), (1, 2, 1), (2, 1, 1), g=2, o=2),
    Case("3d-one-of-each", (1, 4, 6), (3, 4, 1), (2, 1, 2), ((2, 2), (0, 0), (1, 0)), n=2, c=3, o=2),
    Case("4d-plain", (3, 2, 3, 2), (2, 1, 2, 2), padding=((0, 1), (0, 0), (1, 0), (0, 0)), c=2),
    # Empty or vanishing results.
    Case("empty-kernel-too-long", (3,), (5,), n=2, c=2, o=2, vanishes=True),
    Case("empty-one-axis", (5, 3), (2, 4), padding=((1, 1), (0, 0)), vanishes=True),
    Case("empty-after-crop", (4,), (2,), padding=((-2, -2),), vanishes=True),
    Case("empty-group", (5,), (2,), g=0, vanishes=True),
    Case("empty-batch", (5,), (2,), n=0, c=2, vanishes=True),
    Case("empty-channels", (5,), (2,), c=0, n=2, o=3, vanishes=True),
    Case("empty-features", (5,), (2,), o=0, c=2, vanishes=True),
    Case("empty-taps", (5,), (0,), 2, ((1, 0),), c=2, n=2, vanishes=True),
    Case("empty-input-padded", (0,), (2,), padding=2, c=2, vanishes=True),
    Case("empty-input-padded-2d", (0, 4), (2, 3), padding=1, vanishes=True),
    Case("zero-taps-meet-inserted-zeros", (5,), (3,), 2, ((1, 1),), 2, 2, vanishes=True),
)
BY_NAME = {case.name: case for case in CASES}

# A few problems that together use every feature: for what is tested with more dtypes, or costs more to compile.
CORE = tuple(
    BY_NAME[name]
    for name in (
        "1d-channels",
        "1d-long-kernel",
        "1d-long-signal",
        "1d-few-outputs",
        "1d-everything",
        "1d-depthwise",
        "2d-channels",
        "2d-mixed-dilations",
        "2d-everything",
        "0d",
        "3d-everything",
        "empty-kernel-too-long",
    )
)
# Fewer still, in the order of preference: for what must only be shown of each algorithm, not of each problem.
FEW = tuple(
    BY_NAME[name]
    for name in (
        "1d-everything",
        "2d-channels",
        "1d-long-signal",
        "1d-few-outputs",
        "2d-transposed",
        "3d-plain",
        "3d-one-of-each",
    )
)
LIVE = tuple(case for case in CASES if not case.vanishes)
LIVE_CORE = tuple(case for case in CORE if not case.vanishes)

FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = FLOATS + COMPLEX + INTEGERS


def dtype_of(name: str) -> np.dtype:
    """A NumPy dtype by name, ``bfloat16`` included."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def random(shape: tuple[int, ...], dtype: str, seed: int | str = 0) -> np.ndarray:
    """Normal deviates, or integers over the whole range of an integer type; the same for the same arguments."""
    rng = np.random.default_rng(zlib.crc32(f"{seed} {shape} {dtype}".encode()))
    kind = dtype_of(dtype)
    if dtype in INTEGERS:
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    values = rng.standard_normal(shape)
    if dtype in COMPLEX:
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(kind)


def operands(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The two operands of a case."""
    return random(case.x_shape, dtype, f"x {case}"), random(case.w_shape, dtype, f"w {case}")


@functools.cache
def expected(case: Case, dtype: str, convention: str) -> np.ndarray:
    """The oracle's value for the operands of a case, before rounding to the result's dtype."""
    return oracle.conv(*operands(case, dtype), case.geometry(convention))
