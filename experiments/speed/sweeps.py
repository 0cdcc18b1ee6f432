"""Systematic shapes, and random ones that nothing was fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from experiments.speed import problems
from experiments.speed.cases import Case
from experiments.speed.operations import Layer, Mode, Operation, Signal, by, elements, multiply_adds, same, transposed
from jaxconv._spec import dilated

FLOATS = ("float32", "float64")
SINGLE = ("float32",)

# The race: random shapes of each kind, from a seed that the calibration does not use.
RACE_SEED = 20_260
RACE_SHAPES = 6
# Kinds of `problems`, and the groups that they belong to.
KINDS = {
    "signal": "1-D",
    "image": "2-D",
    "volume": "3-D",
    "sequence layer": "dense",
    "image layer": "dense",
    "depthwise": "depthwise",
    "grouped": "grouped",
    "dilated": "dilated",
    "strided": "strided",
    "transposed": "transposed",
    "models": "models",
}
# What the layers of a group have, of which a draw may have nothing by chance.
STEPS = {"dilated": "rhs_dilation", "strided": "strides", "transposed": "lhs_dilation"}
# Limits of the race, so that its slowest peers take some seconds, and its fastest results not only overheads.
RACE_MULTIPLY_ADDS = (3e5, 5e8)
RACE_ELEMENTS = 3e6
# How many of its layers have no padding.
UNPADDED = 0.3


def sweeps() -> list[Case]:
    """Return the systematic cases."""
    return [*_one_channel(), *_layers(), *_models()]


def _one_channel() -> Iterator[Case]:
    lengths = {
        1_000: (3, 16, 64, 256),
        30_000: (3, 16, 64, 256, 1024),
        1_000_000: (3, 16, 64, 256, 1024, 4096, 16_384),
    }
    for n, sizes in lengths.items():
        for k in sizes:
            operation, dtypes = Signal((n,), (k,)), FLOATS if n > 1_000 else SINGLE
            yield Case(f"signal-{n}x{k}", "1-D", operation, dtypes=dtypes, quick=n == 30_000 and k in (16, 256))
    sides = {128: (3, 7, 15, 31), 512: (3, 7, 15, 31, 63), 2048: (3, 7, 15)}
    for n, sizes in sides.items():
        for k in sizes:
            operation, dtypes = Signal((n, n), (k, k), "same"), FLOATS if n == 512 else SINGLE
            yield Case(f"image-{n}x{k}", "2-D", operation, dtypes=dtypes, quick=n == 512 and k in (3, 15))
    for n, sizes in {32: (3, 5, 9), 96: (3, 5, 9)}.items():
        for k in sizes:
            operation, dtypes = Signal((n,) * 3, (k,) * 3, "same"), FLOATS if n == 32 else SINGLE
            yield Case(f"volume-{n}x{k}", "3-D", operation, dtypes=dtypes, quick=(n, k) == (32, 5))


def _layers() -> Iterator[Case]:
    def depthwise(batch: int, size: tuple[int, ...], channels: int, taps: tuple[int, ...], **options) -> Layer:
        return Layer(batch, size, channels, channels, taps, groups=channels, **options)

    rows: dict[str, list[tuple[Operation, tuple[str, ...]]]] = {
        "dense": [
            (Layer(32, (28, 28), 1, 32, (3, 3)), FLOATS),
            (Layer(32, (28, 28), 32, 64, (3, 3)), ()),
            (Layer(8, (56, 56), 64, 64, (3, 3)), ()),
            (Layer(8, (28, 28), 128, 128, (3, 3)), FLOATS),
            (Layer(8, (14, 14), 256, 256, (3, 3)), ()),
            (Layer(1, (224, 224), 3, 64, (7, 7)), ()),
            (Layer(1, (128, 128), 16, 16, (9, 9)), ()),
            (Layer(2, (16, 16), 3, 8, (3, 3)), FLOATS),
            (Layer(8, (1024,), 64, 64, (5,)), ()),
            (Layer(1, (32, 32, 32), 16, 16, (3, 3, 3)), ()),
        ],
        "depthwise": [
            (depthwise(8, (56, 56), 64, (3, 3)), FLOATS),
            (depthwise(8, (56, 56), 64, (7, 7)), ()),
            (depthwise(1, (112, 112), 32, (3, 3)), ()),
            (depthwise(32, (14, 14), 256, (5, 5)), ()),
            (depthwise(8, (1024,), 256, (4,), padding=((3, 0),)), FLOATS),
            (depthwise(4, (2048,), 128, (31,)), ()),
            (depthwise(2, (16, 16, 16), 32, (3, 3, 3)), ()),
        ],
        "grouped": [
            (Layer(8, (28, 28), 128, 128, (3, 3), groups=4), FLOATS),
            (Layer(8, (28, 28), 128, 128, (3, 3), groups=32), ()),
        ],
        "dilated": [
            (Layer(4, (64, 64), 32, 32, (3, 3), rhs_dilation=(2, 2)), FLOATS),
            (Layer(4, (64, 64), 32, 32, (3, 3), rhs_dilation=(4, 4)), ()),
            (Layer(8, (1024,), 64, 64, (3,), rhs_dilation=(64,)), ()),
            (depthwise(4, (64, 64), 64, (3, 3), rhs_dilation=(2, 2)), ()),
            (Layer(2, (15, 11, 17), 64, 8, (1, 9, 2), rhs_dilation=(3, 3, 3)), ()),
        ],
        "strided": [
            (Layer(2, (224, 224), 3, 64, (7, 7), strides=(2, 2)), ()),
            (Layer(8, (56, 56), 64, 64, (3, 3), strides=(2, 2)), FLOATS),
            (Layer(8, (56, 56), 64, 128, (1, 1), strides=(2, 2)), ()),
            (depthwise(8, (56, 56), 64, (3, 3), strides=(2, 2)), ()),
        ],
        "transposed": [
            (_transposed(8, (28, 28), 64, 32, 4, 2, 1), FLOATS),
            (_transposed(4, (16, 16), 64, 64, 3, 2, 1, 1), ()),
            (_transposed(8, (256,), 64, 32, 16, 8, 4), ()),
            (_transposed(1, (16, 16, 16), 16, 8, 4, 2, 1), ()),
        ],
    }
    for group, operations in rows.items():
        for operation, dtypes in operations:
            quick = operation is operations[0][0] or (group == "dense" and operation is operations[3][0])
            yield Case(_name(group, operation), group, operation, dtypes=dtypes or SINGLE, quick=quick)


def _transposed(
    batch: int, size: tuple[int, ...], channels: int, out: int, k: int, step: int, pad: int, extra: int = 0
) -> Layer:
    """Return a layer that upsamples, with torch's parameters: kernel size, stride, padding, output padding."""
    taps = (k,) * len(size)
    padding = transposed(taps, (pad,) * len(size), (extra,) * len(size))
    return Layer(batch, size, channels, out, taps, padding=padding, lhs_dilation=(step,) * len(size))


def _name(group: str, operation: Operation) -> str:
    if not isinstance(operation, Layer):
        raise TypeError(f"only layers are named by their shape, got {operation}")
    steps = {"s": operation.strides, "d": operation.rhs_dilation, "t": operation.lhs_dilation}
    parts = [by((operation.batch, *operation.size, operation.channels)), by((*operation.taps, operation.out))]
    parts += [f"{letter}{values[0]}" for letter, values in steps.items() if max(values) > 1]
    if operation.groups > 1 and group != "depthwise":
        parts.append(f"g{operation.groups}")
    if operation.models is not None:
        parts.insert(0, f"{operation.models}of")
    return f"{group}-{'-'.join(parts)}".replace("×", "x")


def _models() -> Iterator[Case]:
    ensembles = [
        Layer(64, (8, 8), 16, 32, (3, 3), models=8),
        Layer(32, (28, 28), 1, 8, (5, 5), models=4),
        Layer(16, (256,), 8, 16, (9,), models=16),
    ]
    for layer in ensembles:
        yield Case(_name("models", layer), "models", layer, quick=layer is ensembles[0])
    samples = [
        (Layer(1, (64,), 1, 16, (64,), models=16), FLOATS),
        (Layer(1, (64,), 1, 16, (64,), models=64), FLOATS),
        (Layer(1, (28, 28), 1, 32, (3, 3), models=32), SINGLE),
        (Layer(1, (14, 14), 16, 32, (3, 3), models=32), SINGLE),
    ]
    for layer, dtypes in samples:
        yield Case(
            _name("per-sample", layer),
            "per-sample",
            layer,
            directions=("kernel",),
            dtypes=dtypes,
            quick=layer is samples[0][0],
        )


def race(seed: int = RACE_SEED, shapes: int = RACE_SHAPES) -> list[Case]:
    """Return random cases, a number of each kind, with sizes drawn log-uniformly."""
    cases = []
    for number, (kind, group) in enumerate(KINDS.items()):
        rng = np.random.default_rng([seed, number])
        found = 0
        while found < shapes:
            operation = _random(rng, kind)
            low, high = RACE_MULTIPLY_ADDS
            if not low <= multiply_adds(operation) <= high or elements(operation) > RACE_ELEMENTS:
                continue
            if group in STEPS and not _steps(operation, STEPS[group]):
                continue
            found += 1
            name = f"race-{kind.replace(' ', '-')}-{found}"
            dtypes = FLOATS if group in ("1-D", "2-D", "3-D") else SINGLE
            cases.append(Case(name, group, operation, dtypes=dtypes, source="race", quick=found == 1))
    return cases


def _steps(operation: Operation, name: str) -> bool:
    """Whether a step is larger than 1 on an axis that has several taps."""
    if not isinstance(operation, Layer):
        return False
    return any(step > 1 and taps > 1 for step, taps in zip(getattr(operation, name), operation.taps, strict=True))


def _random(rng: np.random.Generator, kind: str) -> Operation:
    """Draw the shapes of a kind as the calibration does, with the paddings that people use."""
    drawn = problems.forward(rng, "image layer" if kind == "models" else kind, np.dtype(np.float32))
    size, taps, spec = drawn.input_shape, drawn.kernel_shape, drawn.spec
    if kind in ("signal", "image", "volume"):
        taps = tuple(min(k, n) for k, n in zip(taps, size, strict=True))
        modes: tuple[Mode, ...] = ("full", "same", "valid")
        return Signal(size, taps, modes[rng.integers(3)])
    models = problems.between(rng, 2, 16) if kind == "models" else None
    step = spec.lhs_dilation
    if kind == "transposed":
        taps = tuple(max(k, d) for k, d in zip(taps, step, strict=True))
        # As many outputs as inputs times the stride, where the kernel allows it.
        padding = transposed(taps, tuple((k - d) // 2 for k, d in zip(taps, step, strict=True)))
    else:
        padding = same(taps, spec.rhs_dilation)
        reaches = [dilated(k, d) for k, d in zip(taps, spec.rhs_dilation, strict=True)]
        fits = all(n >= reach for n, reach in zip(size, reaches, strict=True))
        if rng.uniform() < UNPADDED and fits:
            padding = ((0, 0),) * len(size)
    layer = Layer(
        drawn.batch,
        size,
        drawn.groups * drawn.in_channels,
        drawn.groups * drawn.out_channels,
        taps,
        spec.strides,
        padding,
        step,
        spec.rhs_dilation,
        drawn.groups,
        models=models,
    )
    if models is not None:
        layer = dataclasses.replace(layer, batch=min(layer.batch, 16), channels=min(layer.channels, 32))
    return layer
