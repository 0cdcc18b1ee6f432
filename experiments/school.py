"""Small networks that learn side by side: what `experiments.twins` trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import data
from experiments.optimizers import OPTIMIZERS, choice
from experiments.training import Trainer, spread, stack
from jaxconv.nn import CNN

WIDTHS = (16, 32)
BATCH = 32
BIAS = 0.05  # standard deviation of the first biases
CHUNKS = 4
RATES = {"SGD": 0.5, "momentum": 0.1, "Adam": 0.01, "Adafactor": 0.05, "Muon": 0.02}
EPS = 1e-4


class SmoothCNN(CNN):
    """`CNN` with a differentiable function in the place of each that has a kink."""

    def __call__(self, images: jax.Array) -> jax.Array:
        features = images
        for conv in self.convs:
            features = nnx.silu(conv(features))
            count, height, width, channels = features.shape
            features = features.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        return self.head(features.reshape(len(features), -1))


@dataclass(frozen=True)
class Network:
    """A reader of digits: a convention and the algorithm that computes it; or, with neither, plain Flax.

    The `smooth` variant has no kinks: a sigmoid linear unit for the rectifier, a mean for the maximum.
    """

    convention: str = ""
    method: str = ""
    smooth: bool = False

    def build(self) -> CNN:
        """Return the network with shapes for parameters, which arrive with each call."""
        options: dict[str, Any] = {"conv": nnx.Conv}
        if self.convention:
            options = {"convention": self.convention, "method": self.method}
        kind = SmoothCNN if self.smooth else CNN
        return nnx.eval_shape(lambda: kind(1, 10, image_shape=(8, 8), widths=WIDTHS, rngs=nnx.Rngs(0), **options))


REFERENCE, PLAIN = Network("correlation", "xla"), Network()


class Buildable(Hashable, Protocol):
    """What a school can train: its network has `convs`, and a parameter named `kernel` in each."""

    def build(self) -> nnx.Module: ...


class Course(NamedTuple):
    """What a training left behind.

    `losses` [steps, seeds, optimisers] before each step; `filters` after it, for each layer [steps, seeds, optimisers,
    *space, inputs, outputs]; `answers` to the test at the end [seeds, optimisers, examples].
    """

    losses: np.ndarray
    filters: tuple[np.ndarray, ...]
    answers: np.ndarray


class Comparison(NamedTuple):
    """A course beside that of the reference.

    [steps, seeds, optimisers]: `losses` of its own, and `gap`, their absolute difference from the reference's.
    [layers, steps, seeds, optimisers]: `drift`, the relative distance of the filters.
    [seeds, optimisers]: `accuracy`, and `disagreement`, the share of the test that it answers otherwise.
    """

    losses: np.ndarray
    gap: np.ndarray
    drift: np.ndarray
    accuracy: np.ndarray
    disagreement: np.ndarray


class School:
    """Trains networks of one precision on the same examples in the same order, by several optimisers."""

    def __init__(
        self,
        examples: data.Examples,
        seeds: list[int],
        steps: int,
        dtype: Any,
        tick: Callable[[], object],
        optimizers: Sequence[str] = OPTIMIZERS,
    ):
        self.images, self.labels = jnp.asarray(examples.images, dtype), jnp.asarray(examples.labels)
        self.test_images, self.test_labels = jnp.asarray(examples.test_images, dtype), examples.test_labels
        self.seeds, self.steps, self.dtype, self.tick = seeds, steps, np.dtype(dtype), tick
        self.optimizers = tuple(optimizers)
        self._programs: dict[Buildable, tuple[Trainer, Callable[[Any], jax.Array]]] = {}

    def start(self, network: Buildable = REFERENCE) -> Any:
        """Return first parameters of a network, [seeds, ...] each; those of one seed agree in all precisions."""

        def draw(shape: tuple[int, ...], rng: np.random.Generator) -> jax.Array:
            # Flax's own initial values, as to their variance, but for the biases.
            scale = 1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else BIAS
            return jnp.asarray(scale * rng.standard_normal(shape), self.dtype)

        shapes = nnx.to_pure_dict(nnx.state(network.build()))
        rngs = map(np.random.default_rng, self.seeds)
        return stack([jax.tree.map(lambda leaf, rng=rng: draw(leaf.shape, rng), shapes) for rng in rngs])

    def train(self, network: Buildable, start: Any) -> Course:
        """Train from a start, [seeds, ...], under every optimiser."""
        if network not in self._programs:
            self._programs[network] = self._compose(network)
        trainer, answer = self._programs[network]
        orders = [self._order(seed) for seed in self.seeds[: len(jax.tree.leaves(start)[0])]]
        params = dict.fromkeys(self.optimizers, start)
        # In the body of a loop XLA on CPUs computes the gradients of plain Flax several times as slowly: do without.
        chunks, every = (self.steps, self.steps // CHUNKS) if network == PLAIN else (CHUNKS, 1)
        ticks = itertools.count(1)
        fit = trainer.fit(
            params,
            None,
            np.stack(orders, 1),
            steps=self.steps,
            chunks=chunks,
            tick=lambda: next(ticks) % every or self.tick(),
        )
        return Course(fit.losses, fit.records, np.asarray(answer(fit.params)))

    def compare(self, reference: Course, course: Course, *, flipped: bool = False) -> Comparison:
        """Set a course beside the reference, for the seeds that it has; `flipped`: after flipping its filters."""
        seeds = course.losses.shape[1]
        filters = [layer[:, :seeds] for layer in reference.filters]
        others = [flip(layer, layer.ndim - 5) for layer in course.filters] if flipped else course.filters
        return Comparison(
            losses=course.losses,
            gap=np.abs(course.losses - reference.losses[:, :seeds]),
            drift=distance(filters, others),
            accuracy=(course.answers == self.test_labels).mean(-1),
            disagreement=(course.answers != reference.answers[:seeds]).mean(-1),
        )

    def _compose(self, network: Buildable) -> tuple[Trainer, Callable[[Any], jax.Array]]:
        """Return what trains a network, and what applies it to the test; parameters are {optimiser: state}."""
        graph = nnx.graphdef(network.build())

        def logits(params: dict[str, Any], images: jax.Array) -> jax.Array:
            return jnp.stack([nnx.merge(graph, params[name])(images) for name in self.optimizers])

        def loss(params: dict[str, Any], _: None, batch: jax.Array) -> jax.Array:
            outputs = jax.nn.log_softmax(logits(params, self.images[batch]))
            return -jnp.take_along_axis(outputs, self.labels[batch][None, :, None], axis=-1).mean((-2, -1))

        def filters(params: dict[str, Any]) -> tuple[jax.Array, ...]:
            layers = [[layer["kernel"] for layer in params[name]["convs"].values()] for name in self.optimizers]
            return tuple(jnp.stack(kernels) for kernels in zip(*layers, strict=True))

        optimizer = choice(RATES, self.steps, EPS, self.optimizers)
        trainer = Trainer(loss, optimizer, what=f"twins, {network}, {self.dtype}", record=filters)
        return trainer, spread(lambda params: logits(params, self.test_images).argmax(-1))

    def _order(self, seed: int) -> np.ndarray:
        """Return the digits of every batch, [steps, batch]: one permutation of all digits after another."""
        rng, count = np.random.default_rng((seed, 1)), len(self.labels)
        size = self.steps * BATCH
        orders = [rng.permutation(count) for _ in range(-(-size // count))]
        return np.concatenate(orders)[:size].reshape(self.steps, BATCH)


def flip(filters: Any, ndim: int = 2) -> Any:
    """Reverse the spatial axes of filters [..., *space, inputs, outputs]; by NumPy's notation, not the library's."""
    return filters[(..., *[slice(None, None, -1)] * ndim, slice(None), slice(None))]


def flip_network(params: Any) -> Any:
    """Flip the filters of a network, whose parameters are [seeds, ...], and nothing else."""

    def flipped(layer: Any) -> Any:
        return layer | {"kernel": flip(layer["kernel"], layer["kernel"].ndim - 3)}

    layers = {index: flipped(layer) for index, layer in params["convs"].items()}
    return params | {"convs": layers}


def disturb(params: Any, rng: np.random.Generator) -> Any:
    """Move every parameter by one unit in the last place, up or down."""

    def move(array: jax.Array) -> jax.Array:
        values = np.asarray(array)
        target = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf).astype(values.dtype)
        return jnp.asarray(np.nextafter(values, target))

    return jax.tree.map(move, params)


def distance(filters: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Return the relative distances of filters, [layers, steps, seeds, optimisers]."""

    def norm(layer: np.ndarray) -> np.ndarray:
        return np.linalg.norm(layer.reshape(*layer.shape[:3], -1), axis=-1)

    return np.stack([norm(mine - theirs) / norm(mine) for mine, theirs in zip(filters, others, strict=True)])
