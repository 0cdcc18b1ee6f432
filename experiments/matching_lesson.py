"""Learn a template from noisy examples by gradient ascent on the unit sphere, for `experiments.matching`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data
from experiments.kernels import flip
from jaxconv.signal import convolve, correlate

SQUARE = 300  # side of what is taken of a photograph
CONTRAST = 0.08  # least standard deviation of an object or a probe: nobody finds a piece of blank wall
OBJECT, EXAMPLE, EXAMPLES, STEPS, RATE, LEARNING_NOISE = 16, 40, 64, 60, 0.3, 0.3


class Lesson(NamedTuple):
    """What was learned, by correlation and by convolution.

    `objects` [objects, height, width]; `templates` [operations, objects, height, width]; `cosines` of the templates
    with the object and with its rotation [steps + 1, operations, 2, objects].
    """

    objects: np.ndarray
    templates: np.ndarray
    cosines: np.ndarray


def unit(template: jax.Array) -> jax.Array:
    """Bring a template to zero mean and unit length."""
    template = template - template.mean((-2, -1), keepdims=True)
    return template / jnp.linalg.norm(template, axis=(-2, -1), keepdims=True)


def learn(rng: np.random.Generator, count: int, dtype: type) -> Lesson:
    """Learn `count` pieces of photographs from examples, by correlation and by convolution, from the same starts."""
    objects = np.stack([draw_object(rng) for _ in range(count)])
    examples = LEARNING_NOISE * rng.standard_normal((count, EXAMPLES, EXAMPLE, EXAMPLE))
    places = rng.integers(EXAMPLE - OBJECT + 1, size=(count, EXAMPLES, 2))
    for sample, piece, corners in zip(examples, objects, places, strict=True):
        for scene, (top, left) in zip(sample, corners, strict=True):
            scene[top : top + OBJECT, left : left + OBJECT] += OBJECT * 0.2 * piece
    start = unit(jnp.asarray(rng.standard_normal(objects.shape), dtype))
    samples = (jnp.asarray(examples, dtype), jnp.asarray(places))
    templates, cosines = [], []
    goals = jnp.asarray(np.stack([objects, flip(objects)]), dtype)
    for operation in (correlate, convolve):
        learned, course = _ascend(operation, start, goals, *samples)
        templates.append(np.asarray(learned))
        cosines.append(np.asarray(course))
    return Lesson(objects, np.stack(templates), np.stack(cosines, 1))


def draw_object(rng: np.random.Generator) -> np.ndarray:
    """Draw a piece of a photograph that is not nearly its own rotation, zero mean and unit length."""
    while True:
        square = data.photograph(str(rng.choice(list(data.PHOTOGRAPHS))), SQUARE)
        top, left = rng.integers(SQUARE - OBJECT + 1, size=2)
        piece = square[top : top + OBJECT, left : left + OBJECT]
        if piece.std() >= CONTRAST:
            piece = piece - piece.mean()
            piece = piece / np.linalg.norm(piece)
            if abs((piece * flip(piece)).sum()) < 0.5:
                return piece


def _ascend(
    operation: Callable[..., jax.Array], start: jax.Array, goals: jax.Array, examples: jax.Array, places: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def response(template: jax.Array, examples: jax.Array, places: jax.Array) -> jax.Array:
        def one(scene: jax.Array, place: jax.Array) -> jax.Array:
            return operation(scene, template, mode="valid", method="fft")[place[0], place[1]]

        return jax.vmap(one)(examples, places).mean()

    def step(templates: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        gradient = jax.vmap(jax.grad(response))(templates, examples, places)
        templates = unit(templates + RATE * gradient)
        return templates, cosines(templates)

    def cosines(templates: jax.Array) -> jax.Array:
        return (templates * goals).sum((-2, -1))

    learned, course = jax.jit(lambda start: jax.lax.scan(step, start, None, length=STEPS))(start)
    return learned, jnp.concatenate([cosines(start)[None], course])
