"""Random convolution problems of the kinds that people have, for measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxconv._simplify import simplify
from jaxconv._spec import ConvSpec, Held, Problem, groups_in_front, held_by_layers

KINDS = (
    "signal",
    "few taps",
    "image",
    "volume",
    "sequence layer",
    "image layer",
    "aligned layer",
    "narrow layer",
    "wide layer",
    "depthwise",
    "grouped",
    "dilated",
    "strided",
    "patches",
    "pointwise",
    "grouped pointwise",
    "transposed",
    "models",
    "large signal",
    "large image",
    "one axis",
    "large layer",
    "network layer",
)
# The share of layers whose channels come first.
CHANNELS_FIRST = 0.3
# Larger problems take too long to measure by the slowest algorithm.
MAX_MULTIPLY_ADDS = 2e9
MAX_ELEMENTS = 2e7


def draw(rng: np.random.Generator, dtype: np.dtype, kinds: tuple[str, ...] = KINDS) -> Iterator[Problem]:
    """Yield simplified problems without end: forward ones and both gradients, shapes drawn log-uniformly."""
    while True:
        problem = forward(rng, str(rng.choice(kinds)), dtype)
        ndim = problem.spec.ndim
        if problem.spec.held == held_by_layers(ndim, channels_last=True) and rng.uniform() < CHANNELS_FIRST:
            held = held_by_layers(ndim, channels_last=False)
            problem = dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, held=held))
        direction = rng.choice(["forward", "input", "kernel"], p=[0.5, 0.25, 0.25])
        if direction != "forward" and not problem.empty:
            problem = problem.input_gradient() if direction == "input" else problem.kernel_gradient()
        if problem.empty:
            continue
        problem, _ = simplify(problem)
        elements = max(np.prod(shape, dtype=float) for shape in (problem.x_shape, problem.w_shape, problem.y_shape))
        if not problem.empty and problem.multiply_adds <= MAX_MULTIPLY_ADDS and elements <= MAX_ELEMENTS:
            yield problem


def between(rng: np.random.Generator, low: float, high: float) -> int:
    """Draw an integer log-uniformly."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def forward(rng: np.random.Generator, kind: str, dtype: np.dtype) -> Problem:
    """Draw a forward problem of a kind."""
    groups, batch, channels, out = 1, 1, 1, 1
    held: Held | None = None
    steps: tuple[int, ...] | None = None
    if kind == "signal":
        ndim, batch = 1, between(rng, 1, 4)
        size = [between(rng, 300, 1e6)]
        taps = [between(rng, 2, 3000)]
    elif kind == "few taps":
        ndim, size, taps = 1, [between(rng, 1000, 2e6)], [between(rng, 2, 16)]
    elif kind == "image":
        ndim, batch = 2, between(rng, 1, 4)
        size = [between(rng, 16, 1500) for _ in range(ndim)]
        taps = [between(rng, 1, 50) for _ in range(ndim)]
    elif kind == "volume":
        ndim = 3
        size = [between(rng, 8, 100) for _ in range(ndim)]
        taps = [between(rng, 1, 12) for _ in range(ndim)]
    elif kind == "one axis":
        ndim, size, taps = 2, [between(rng, 64, 2000) for _ in range(2)], [1, 1]
        taps[rng.integers(2)] = between(rng, 2, 200)
    elif kind == "large signal":
        ndim, size = 1, [between(rng, 1e6, 1e7)]
        taps = [between(rng, 2, 3000)]
    elif kind == "large image":
        ndim, size = 2, [between(rng, 1000, 4000) for _ in range(2)]
        taps = [between(rng, 1, 50) for _ in range(2)]
        if rng.uniform() < 0.5:
            taps[rng.integers(2)] = 1
    else:
        ndim = 1 if kind == "sequence layer" else int(rng.choice([1, 2, 2, 3]))
        batch = between(rng, 1, 32)
        size = [between(rng, 4, {1: 4000, 2: 100, 3: 24}[ndim]) for _ in range(ndim)]
        taps = [between(rng, 1, {1: 40, 2: 8, 3: 4}[ndim]) for _ in range(ndim)]
        if kind == "depthwise":
            groups, out = between(rng, 8, 300), int(rng.choice([1, 1, 1, 2]))
        else:
            groups = between(rng, 2, 32) if kind == "grouped" else 1
            channels, out = between(rng, 1, 150), between(rng, 1, 150)
        if kind == "models":
            groups, batch, channels = between(rng, 2, 16), min(batch, 16), min(channels, 32)
        if kind == "aligned layer":
            channels, out = (int(rng.choice([8, 16, 32, 64, 128])) for _ in range(2))
        if kind == "wide layer":
            channels, out = (int(rng.choice([64, 90, 96, 128, 192, 256, 384, 512])) for _ in range(2))
            batch, taps = between(rng, 1, 16), [int(rng.choice([1, 2, 3, 3, 3, 5])) for _ in range(ndim)]
            size = [between(rng, 4, {1: 1000, 2: 56, 3: 14}[ndim]) for _ in range(ndim)]
        if kind == "network layer":
            ndim, batch = int(rng.choice([1, 2, 2, 2, 3])), between(rng, 1, 64)
            size = [
                int(rng.choice({1: [64, 250, 1000], 2: [7, 8, 14, 16, 28, 32, 56, 64], 3: [8, 14, 16]}[ndim]))
            ] * ndim
            taps = [int(rng.choice([1, 2, 3, 3, 3, 4, 5, 7]))] * ndim
            channels, out = (int(rng.choice([3, 6, 16, 32, 32, 64, 64, 128, 256])) for _ in range(2))
            if rng.uniform() < 0.15:
                groups, channels, out = 8 * channels, 1, 1
            steps = (int(rng.choice([1, 1, 1, 2])),) * ndim
        if kind == "narrow layer":
            channels, out = between(rng, 1, 8), between(rng, 1, 8)
        if kind == "large layer":
            batch, channels, out = between(rng, 16, 256), between(rng, 1, 64), between(rng, 1, 64)
        if kind == "patches":
            taps = [between(rng, 2, {1: 32, 2: 16, 3: 4}[ndim])] * ndim
            steps = tuple(taps)
        if kind == "pointwise":
            taps, channels, out = [1] * ndim, between(rng, 4, 1000), between(rng, 4, 1000)
        if kind == "grouped pointwise":
            taps, groups, channels, out = [1] * ndim, between(rng, 2, 16), between(rng, 4, 300), between(rng, 4, 300)
        if kind in ("dilated", "strided", "transposed") and rng.uniform() < 0.25:
            groups, channels, out = channels, 1, 1
        held = held_by_layers(ndim, channels_last=True)
        held = groups_in_front(held) if kind == "models" else held
    if kind in ("dilated", "strided", "transposed"):
        steps = tuple(int(s) for s in rng.integers(1, 4, ndim))
    ones = (1,) * ndim
    pads = [int(rng.integers(0, t + 1)) for t in taps]
    if kind in ("aligned layer", "narrow layer", "wide layer", "network layer"):
        pads = [t // 2 for t in taps] if rng.uniform() < 0.5 else [0] * ndim
    spec = ConvSpec(
        strides=steps if steps and kind not in ("dilated", "transposed") else ones,
        padding=tuple((pad, pad) for pad in pads),
        lhs_dilation=steps if steps and kind == "transposed" else ones,
        rhs_dilation=steps if steps and kind == "dilated" else ones,
        convention="correlation",
        method="auto",
        precision=None,
        out_dtype=dtype,
        held=held,
    )
    return Problem(groups, batch, channels, out, tuple(size), tuple(taps), dtype, spec)


def with_method(problem: Problem, method: str) -> Problem:
    """Return the problem with a method."""
    return dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, method=method))
