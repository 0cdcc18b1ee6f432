"""What `experiments.ensembles` trains: many networks of either convention, each from a start of its own.

The data come as they are, with an asymmetry under rotation by 180 degrees built in, and made symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import data
from experiments.core import require_finite
from experiments.training import Trainer, spread
from jaxconv.nn import CNN

CONVENTIONS = ("correlation", "convolution")
NATURAL, ASYMMETRIC, SYMMETRIC = range(3)
CONDITIONS = ("as they are", "asymmetric", "symmetric")

WIDTHS = (8, 16)
STEPS, BATCH, RATE = 300, 32, 0.01
CHUNKS = 5
START = 0.3  # of the usual scale, for the filters of the first layer
BIAS = 0.05  # standard deviation of the first biases
PORTION = 120  # test images classified at a time, which bounds the memory

MARK = 3.0 * np.array([[1, 1, 0], [1, 0, -1], [0, -1, -1]])


class Task(NamedTuple):
    """Images to learn and to be tested on, one entry for each of `CONDITIONS`."""

    name: str
    labels: tuple[np.ndarray, ...]
    images: tuple[np.ndarray, ...]
    test_labels: np.ndarray
    test_images: tuple[np.ndarray, ...]

    @property
    def classes(self) -> int:
        return int(self.test_labels.max()) + 1


class Ensemble(NamedTuple):
    """Networks, trained.

    `accuracy` [conditions, conventions, runs] on the test of the condition. `exchanged` [runs]: that of the convolution
    networks, on data as they are, when their filters are used for correlation. `filters` of the first layer, and
    `starts`, what they were before training [conditions, conventions, runs, filters, height, width].
    """

    accuracy: np.ndarray
    exchanged: np.ndarray
    filters: np.ndarray
    starts: np.ndarray


def turn(images: np.ndarray) -> np.ndarray:
    """Turn images [count, height, width, ...] by 180 degrees."""
    return images[:, ::-1, ::-1]


def emboss(images: np.ndarray) -> np.ndarray:
    """Return images as reliefs lit from the upper left: the change along the diagonal, with falls a fifth as strong."""
    change = images - np.pad(images, ((0, 0), (1, 0), (1, 0), (0, 0)))[:, :-1, :-1]
    return np.where(change > 0, change, 0.2 * change)


def stamp(images: np.ndarray, marked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images with `MARK` added at a random place of each of those that are `marked`."""
    result = images.copy()
    side = len(MARK)
    for index in np.flatnonzero(marked):
        top, left = (rng.integers(length - side + 1) for length in images.shape[1:3])
        result[index, top : top + side, left : left + side, 0] += MARK
    return result


def digits(rng: np.random.Generator) -> Task:
    """Return the digits; the asymmetric ones are embossed."""
    return _task("digits", data.digits(rng, test=600), lambda images, _: emboss(images), rng)


def textures(rng: np.random.Generator) -> Task:
    """Return the textures; brick, when asymmetric, bears a mark."""
    return _task("textures", data.textures(rng), lambda images, labels: stamp(images, labels == 0, rng), rng)


def _task(
    name: str,
    given: data.Examples,
    distort: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> Task:
    images, labels, tests, test_labels = given
    turned = rng.random(len(tests)) < 0.5
    return Task(
        name,
        # Each image both ways round, so that what is learned from is exactly symmetric.
        (labels, labels, np.concatenate([labels, labels])),
        (images, distort(images, labels), np.concatenate([images, turn(images)])),
        test_labels,
        (tests, distort(tests, test_labels), np.where(turned[:, None, None, None], turn(tests), tests)),
    )


def train(task: Task, runs: int, rng: np.random.Generator, tick: Callable[[], object]) -> Ensemble:
    """Train `runs` networks of each convention under each condition, all from starts and in orders of their own."""
    graphs = {convention: nnx.graphdef(_build(task, convention)) for convention in CONVENTIONS}
    images, labels = jnp.asarray(np.concatenate(task.images), jnp.float32), jnp.asarray(np.concatenate(task.labels))

    def loss(params: dict[str, Any], _: None, batch: jax.Array) -> jax.Array:
        losses = []
        for convention, chosen in zip(CONVENTIONS, batch, strict=True):
            logits = nnx.merge(graphs[convention], params[convention])(images[chosen])
            losses.append(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean())
        return jnp.stack(losses)

    start = {convention: draw(_build(task, convention), len(CONDITIONS) * runs, rng) for convention in CONVENTIONS}
    trainer = Trainer(loss, optax.adam(optax.cosine_decay_schedule(RATE, STEPS)), what=f"ensembles, {task.name}")
    fit = trainer.fit(start, None, _batches(task, runs, rng), steps=STEPS, chunks=CHUNKS, tick=tick)

    def classify(convention: str) -> Callable[[Any, jax.Array], jax.Array]:
        def answer(params: Any, portions: jax.Array) -> jax.Array:
            return jax.lax.map(nnx.merge(graphs[convention], params), portions).argmax(-1)

        return spread(answer, in_axes=(0, None))

    answer = {convention: classify(convention) for convention in CONVENTIONS}

    def accuracy(convention: str, params: Any, condition: int) -> np.ndarray:
        mine = jax.tree.map(lambda leaf: leaf[condition * runs : (condition + 1) * runs], params)
        portions = jnp.asarray(task.test_images[condition], jnp.float32).reshape(-1, PORTION, *images.shape[1:])
        answers = np.asarray(answer[convention](mine, portions)).reshape(runs, -1)
        return (answers == task.test_labels).mean(-1)

    trained = [[accuracy(name, fit.params[name], k) for name in CONVENTIONS] for k in range(len(CONDITIONS))]
    exchanged = accuracy("correlation", fit.params["convolution"], NATURAL)
    ensemble = Ensemble(np.array(trained), exchanged, _filters(fit.params), _filters(start))
    require_finite(f"ensembles, {task.name}", ensemble)
    return ensemble


def draw(network: CNN, runs: int, rng: np.random.Generator) -> Any:
    """Return parameters for a network of shapes, [runs, ...] each.

    Their variance is that of Flax, but that biases are not 0 and the first filters are small, so that what is learned
    outweighs where they started.
    """

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        scale = 1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else BIAS
        return jnp.asarray(scale * rng.standard_normal((runs, *shape)), jnp.float32)

    params = jax.tree.map(lambda value: leaf(value.shape), nnx.to_pure_dict(nnx.state(network)))
    params["convs"][0]["kernel"] *= START
    return params


def _build(task: Task, convention: Any) -> CNN:
    """Return the network with shapes for parameters, which arrive with each call."""
    options: dict[str, Any] = {"image_shape": task.test_images[0].shape[1:3], "widths": WIDTHS}
    return nnx.eval_shape(lambda: CNN(1, task.classes, **options, convention=convention, rngs=nnx.Rngs(0)))


def _batches(task: Task, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Return places of images among those of all conditions, [steps, conditions and runs, conventions, batch]."""
    ends = np.cumsum([len(images) for images in task.images])
    parts = [
        rng.integers(end - len(images), end, size=(STEPS, runs, len(CONVENTIONS), BATCH), dtype=np.int32)
        for images, end in zip(task.images, ends, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def _filters(params: dict[str, Any]) -> np.ndarray:
    """Return the first layers as [conditions, conventions, runs, filters, height, width]."""
    kernels = np.stack([np.asarray(params[name]["convs"][0]["kernel"], float)[..., 0, :] for name in CONVENTIONS])
    kernels = np.moveaxis(kernels, -1, 2)
    return np.moveaxis(kernels.reshape(len(CONVENTIONS), len(CONDITIONS), -1, *kernels.shape[2:]), 0, 1)
