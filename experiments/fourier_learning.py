"""The same filters, learned through every algorithm that is registered."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.signal

import jaxconv
from experiments import data
from experiments.algebra import asymmetric
from experiments.core import Context
from experiments.fourier_plans import able
from experiments.training import Trainer
from jaxconv import lax

CONVENTIONS = ("convolution", "correlation")
FILTERS = 4  # of a bank; each is one output channel
STEPS = 60
SIDE, WHITENING_SIDE = 56, 9


class Problem(NamedTuple):
    """Inputs [n, c, *S], filters [o, c, *K] and the inputs truly convolved with them, [n, o, *M], `valid` mode."""

    inputs: np.ndarray
    filters: np.ndarray
    targets: np.ndarray
    dilation: int

    def layer(self, convention: Any, method: str) -> Any:
        """Return a function of inputs and filters."""
        axes = self.inputs.ndim - 2
        return partial(
            lax.conv_general_dilated,
            window_strides=(1,) * axes,
            padding="VALID",
            rhs_dilation=(self.dilation,) * axes,
            convention=convention,
            method=method,
        )

    def plan(self, method: str = "auto") -> Any:
        shapes = (jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in (self.inputs, self.filters))
        return jaxconv.plan(self.layer("convolution", method), *shapes)[0]


class Lesson(NamedTuple):
    """What was learned through one algorithm.

    `filters` [conventions, o, c, *K], those of the correlation turned back; `errors` [steps, conventions, o], relative
    to the true filters; `flipped` [conventions, o], the distance from the wrong way round; `runs_as` names the
    algorithms that computed the layer and the gradient of its filters.
    """

    filters: np.ndarray
    errors: np.ndarray
    flipped: np.ndarray
    runs_as: tuple[str, str]


def assign(problems: dict[str, Problem], *, quick: bool) -> list[tuple[str, str]]:
    """Return pairs (problem, algorithm): all that can be run, or the first for each algorithm."""
    pairs = [(name, method) for name, problem in problems.items() for method in able(problem.plan().forward)]
    if not quick:
        return pairs
    first = {method: (name, method) for name, method in reversed(pairs)}
    return [pair for pair in pairs if pair in first.values()]


def turned(filters: Any) -> Any:
    """Reverse the spatial axes of filters, [o, c, *K]."""
    return np.flip(np.asarray(filters), tuple(range(2, np.ndim(filters))))


def whitened(name: str) -> np.ndarray:
    image = data.photograph(name, SIDE + WHITENING_SIDE - 1)
    image = data.filtered(image - image.mean(), data.whitening_filter(image - image.mean(), WHITENING_SIDE))
    return image / image.std()


def pose(context: Context) -> dict[str, Problem]:
    """Return problems out of whitened photographs, of such shapes that every algorithm can run one of them."""
    photographs = [whitened(name) for name in data.PHOTOGRAPHS]
    lines = np.stack([image[::2, :40] for image in photographs]).reshape(-1, 1, 40)
    volume = np.stack(photographs)[:, :24, :24]
    shapes = {
        "three photographs": (np.stack(photographs[:3])[None], (5, 5), 1),
        "many short lines": (lines, (32,), 1),
        "one long line": (np.reshape(photographs[0], (1, 1, -1)), (17,), 1),
        "a dilated layer": (photographs[1][None, None], (5, 5), 2),
        "a stack of photographs": (volume[None, None], (3, 3, 3), 1),
        "columns of photographs": (np.stack(photographs)[:, None, :, :8], (7, 1), 1),
    }
    return {
        name: problem(context.rng(3, number), inputs, taps, dilation)
        for number, (name, (inputs, taps, dilation)) in enumerate(shapes.items())
    }


def problem(rng: np.random.Generator, inputs: np.ndarray, taps: tuple[int, ...], dilation: int) -> Problem:
    """Draw filters that are far from their flips, convolve by SciPy, and scale so that the largest curvature is 1."""
    channels, space = inputs.shape[1], tuple(range(2, inputs.ndim))
    filters = np.stack([[asymmetric(rng, "float64", taps) for _ in range(channels)] for _ in range(FILTERS)])
    filters /= np.linalg.norm(filters.reshape(FILTERS, -1), axis=-1).reshape(-1, *[1] * (filters.ndim - 1))
    spread = np.zeros((*filters.shape[:2], *(dilation * (count - 1) + 1 for count in taps)))
    spread[(..., *[slice(None, None, dilation)] * len(taps))] = filters
    targets = np.stack(
        [
            sum(scipy.signal.convolve(inputs[:, c], bank[c][None], mode="valid") for c in range(channels))
            for bank in spread
        ],
        axis=1,
    )
    windows = np.lib.stride_tricks.sliding_window_view(inputs, spread.shape[2:], axis=space)
    windows = windows[(..., *[slice(None, None, dilation)] * len(taps))]
    # To [n, *M, c, *K], hence one row for each output.
    windows = np.moveaxis(windows, 1, 1 + len(taps)).reshape(-1, channels * math.prod(taps))
    scale = np.sqrt(np.linalg.eigvalsh(windows.T @ windows / len(windows))[-1])
    return Problem(inputs / scale, filters, targets / scale, dilation)


def learn(context: Context, problem: Problem, method: str, tick: Callable[[], object]) -> Lesson:
    """Learn all filters by plain gradient descent, under both conventions in one program."""
    inputs, targets, truth = (jnp.asarray(a, context.dtype) for a in (problem.inputs, problem.targets, problem.filters))
    layers = [problem.layer(convention, method) for convention in CONVENTIONS]
    goals = jnp.stack([truth, jnp.asarray(turned(problem.filters), context.dtype)])
    size = math.sqrt(math.prod(problem.filters.shape[1:]))
    start = context.rng(4).standard_normal((1, len(CONVENTIONS), *problem.filters.shape)) / size

    def loss(params: jax.Array, *_: None) -> jax.Array:
        outputs = [layer(inputs, filters) for layer, filters in zip(layers, params, strict=True)]
        return jnp.stack([0.5 * jnp.mean((each - targets) ** 2, (0, *range(2, each.ndim))).sum() for each in outputs])

    def errors(params: jax.Array) -> jax.Array:
        # Relative ones, since the filters have norm 1.
        return jnp.sqrt(((params - goals) ** 2).sum(range(2, params.ndim)))

    trainer = Trainer(loss, optax.sgd(1.0), what=f"filters through {method}", record=errors)
    fit = trainer.fit(jnp.asarray(start, context.dtype), steps=STEPS, tick=tick)
    learned = np.asarray(fit.params[0])
    upright = np.stack([learned[0], turned(learned[1])])
    flipped = np.linalg.norm((upright - turned(problem.filters)).reshape(*upright.shape[:2], -1), axis=-1)
    plan = problem.plan(method)
    runs_as = (plan.forward.chosen, plan.kernel_gradient.chosen)
    return Lesson(upright, fit.records[:, 0], flipped, runs_as)


def disagreement(lessons: dict[tuple[str, str], Lesson]) -> tuple[float, str]:
    """Return the largest difference of a filter learned through two algorithms from one problem, and where."""
    gaps = {}
    for (name, method), lesson in lessons.items():
        for (other_name, other), reference in lessons.items():
            if name == other_name and method < other:
                gap = (lesson.filters - reference.filters).reshape(*lesson.flipped.shape, -1)
                gaps[f"Largest: {method} and {other}, {name}."] = float(np.linalg.norm(gap, axis=-1).max())
    return max((gap, where) for where, gap in gaps.items())
