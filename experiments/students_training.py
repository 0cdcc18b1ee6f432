"""Teachers with known filters, and students that learn from what they say: what `experiments.students` measures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from experiments import data
from experiments.core import require_finite
from experiments.training import Trainer, spread
from jaxconv.nn import Conv

CONVENTIONS = ("correlation", "convolution")
FILTERS, SIDE = 4, 5  # of the teacher's first layer
OUTPUTS, SECOND_SIDE = 8, 3  # of the second layer
GAIN, BIAS = 1.5, 0.3  # length of a filter, standard deviation of the biases: far enough for the tangent to bend
LIKENESS = 0.5  # largest |cosine| between filters, flipped or not, of an asymmetric teacher

PATCH, LESSONS, UNSEEN = 12, 256, 128  # side of an image; images to learn from, and to be examined on
EXAMINED_ON = ("camera", "grass")  # photographs that no student learns from
SQUARE, WHITENING = 300, 9
FLOOR = 0.05  # least standard deviation by which an image is divided, of that of its whitened photograph
RATE, BATCH, CHUNKS = 0.05, 16, 4


class Teachers(NamedTuple):
    """Networks that correlate, [runs, ...].

    `first` [..., 5, 5, filters] and `biases` [..., filters] of the first layer, `second` [..., 3, 3, filters, outputs]
    of the second.
    """

    first: np.ndarray
    biases: np.ndarray
    second: np.ndarray


class Lessons(NamedTuple):
    """Images [runs, images, 12, 12, 1] and what the teacher says of them [runs, images, 6, 6, outputs]."""

    images: np.ndarray
    targets: np.ndarray


class Class(NamedTuple):
    """A teacher, lessons and an examination for each student."""

    teachers: Teachers
    lessons: Lessons
    examination: Lessons


class Students(NamedTuple):
    """What became of one class under one convention.

    `start`, `first` [runs, 5, 5, filters] and `second` [runs, 3, 3, filters, outputs] are their filters, the first
    before training too; `losses` [steps, runs] before every step; `unexplained` [runs] the share of the variance in the
    examination that a trained student leaves unexplained.
    """

    start: np.ndarray
    first: np.ndarray
    second: np.ndarray
    losses: np.ndarray
    unexplained: np.ndarray


class Student(nnx.Module):
    """Two layers with a hyperbolic tangent between them."""

    def __init__(self, filters: int, convention: Any, dtype: type, key: jax.Array):
        options: dict[str, Any] = {"padding": "VALID", "convention": convention, "param_dtype": dtype}
        options["rngs"] = nnx.Rngs(key)
        self.first = Conv(1, filters, (SIDE, SIDE), **options)
        self.second = Conv(filters, OUTPUTS, (SECOND_SIDE, SECOND_SIDE), **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.second(jax.numpy.tanh(self.first(images)))


def draw_teacher(rng: np.random.Generator, *, symmetric: bool) -> Teachers:
    """Draw one teacher, no entry of whose filters is near zero: a filter with an empty margin could be shifted.

    All filters of an asymmetric teacher differ from each other's flip and their own; those of a symmetric one, in both
    layers, equal their flip.
    """
    while True:
        first, second = (
            _entries(rng, (SIDE, SIDE, FILTERS)),
            _entries(rng, (SECOND_SIDE, SECOND_SIDE, FILTERS, OUTPUTS)),
        )
        if symmetric:
            first, second = _symmetrised(first), _symmetrised(second)
        first *= GAIN / np.linalg.norm(first, axis=(0, 1))
        alike, turned = (cosines(first, other) for other in (first, turn(first)))
        np.fill_diagonal(alike, 0)
        if max(np.abs(alike).max(), 0 if symmetric else np.abs(turned).max()) <= LIKENESS:
            return Teachers(first, BIAS * rng.standard_normal(FILTERS), second)


def _entries(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)


def _symmetrised(filters: np.ndarray) -> np.ndarray:
    """Copy the first half of every filter, turned, over the second."""
    side = len(filters)
    flat = filters.reshape(side * side, -1).copy()
    half = side * side // 2
    flat[-half:] = flat[:half][::-1]
    return flat.reshape(filters.shape)


def turn(filters: np.ndarray) -> np.ndarray:
    """Turn filters [height, width, ...] by 180 degrees; by NumPy's notation, not the library's."""
    return filters[::-1, ::-1]


def cosines(filters: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosines of all filters [height, width, filters] with all others."""
    mine, theirs = (array.reshape(-1, array.shape[-1]) for array in (filters, others))
    return (mine / np.linalg.norm(mine, axis=0)).T @ (theirs / np.linalg.norm(theirs, axis=0))


def teach(teacher: Teachers, images: np.ndarray) -> np.ndarray:
    """Return a teacher's answers to images [images, height, width]: correlation, written as sums over windows."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (SIDE, SIDE), (1, 2))
    hidden = np.tanh(np.tensordot(windows, teacher.first, 2) + teacher.biases)
    windows = np.lib.stride_tricks.sliding_window_view(hidden, (SECOND_SIDE, SECOND_SIDE), (1, 2))
    return np.einsum("nyxcij,ijco->nyxo", windows, teacher.second, optimize=True)


@cache
def _whitened(names: tuple[str, ...]) -> np.ndarray:
    """Return all windows of the size of an image of whitened photographs, [photographs, rows, columns, 12, 12]."""
    sheets = []
    for name in names:
        photograph = data.photograph(name, SQUARE)
        photograph = photograph - photograph.mean()
        sheet = data.filtered(photograph, data.whitening_filter(photograph, WHITENING))
        sheets.append(sheet / sheet.std())
    return np.lib.stride_tricks.sliding_window_view(np.stack(sheets), (PATCH, PATCH), (1, 2))


def draw_images(rng: np.random.Generator, names: tuple[str, ...], count: int) -> np.ndarray:
    """Cut images out of whitened photographs, and give all of them the same contrast."""
    windows = _whitened(names)
    images = windows[tuple(rng.integers(windows.shape[:3], size=(count, 3)).T)]
    return images / np.maximum(images.std((1, 2), keepdims=True), FLOOR)


def draw_class(rngs: list[np.random.Generator], *, symmetric: list[bool]) -> Class:
    """Draw a teacher, lessons and an examination from each generator."""
    drawn, names = [], tuple(name for name in data.PHOTOGRAPHS if name not in EXAMINED_ON)
    for rng, even in zip(rngs, symmetric, strict=True):
        teacher = draw_teacher(rng, symmetric=even)
        images, unseen = draw_images(rng, names, LESSONS), draw_images(rng, EXAMINED_ON, UNSEEN)
        teacher = teacher._replace(second=teacher.second / np.sqrt(_variance(teach(teacher, images))))
        drawn.append((teacher, *((each[..., None], teach(teacher, each)) for each in (images, unseen))))
    teachers, *lessons = (tuple(map(np.stack, zip(*part, strict=True))) for part in zip(*drawn, strict=True))
    return Class(Teachers(*teachers), *(Lessons(*part) for part in lessons))


def _variance(answers: np.ndarray) -> np.ndarray:
    """Return the mean over outputs of the variance of answers [..., images, height, width, outputs]."""
    return answers.var((-4, -3, -2)).mean(-1)


def educate(
    pupils: Class,
    rngs: list[np.random.Generator],
    filters: int,
    convention: str,
    steps: int,
    dtype: type,
    tick: Callable[[], object],
) -> Students:
    """Train a student of one convention with each teacher, from a start of its own, and examine it."""

    def enrol(seed: jax.Array) -> Any:
        return nnx.state(Student(filters, convention, dtype, jax.random.key(seed)))

    graph = nnx.graphdef(nnx.eval_shape(lambda: Student(filters, convention, dtype, jax.random.key(0))))

    def answer(params: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(images)

    def loss(params: Any, lessons: Lessons, batch: jax.Array) -> jax.Array:
        return ((answer(params, lessons.images[batch]) - lessons.targets[batch]) ** 2).mean()

    start = spread(enrol)(np.array([rng.integers(2**31) for rng in rngs]))
    batches = np.stack([rng.integers(LESSONS, size=(steps, BATCH)) for rng in rngs], 1)
    lessons, (images, targets) = (
        Lessons(*(array.astype(dtype) for array in part)) for part in (pupils.lessons, pupils.examination)
    )
    what = f"students, {convention}, {filters} filters"
    trainer = Trainer(loss, optax.adam(optax.cosine_decay_schedule(RATE, steps)), what=what)
    fit = trainer.fit(start, lessons, batches, steps=steps, chunks=CHUNKS, tick=tick)
    answers = np.asarray(spread(answer)(fit.params, images), float)
    unexplained = ((answers - targets) ** 2).mean((1, 2, 3, 4)) / _variance(targets)
    require_finite(f"{what}, examination", unexplained)
    kernels = (
        state[layer]["kernel"][...]
        for state, layer in ((start, "first"), (fit.params, "first"), (fit.params, "second"))
    )
    begun, first, second = (np.asarray(kernel, float) for kernel in kernels)
    return Students(begun[:, :, :, 0], first[:, :, :, 0], second, fit.losses, unexplained)
