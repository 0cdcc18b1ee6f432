"""Whole training steps of three models: with the layers of `jaxconv.nn`, with those of `flax.nnx`, and in torch.

The models are those of `jaxconv.nn`, made once with each library's layers from the same random keys; torch is given the
same parameters. Before anything is timed, their losses before and after a step must agree.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax import numpy as jnp

from experiments.speed import peers, timing
from experiments.speed.measure import PAUSES
from experiments.speed.records import Step
from jaxconv import nn

STEPS = 4  # in a loop
COMPILATIONS = 2  # of which the shorter counts: the first of a process does much for the first time
RATE = 1e-2  # of the gradient descent
EFFORT = 10  # times that of a convolution, which is as much shorter
TOLERANCE = 1e-3  # relative, between the losses of two libraries in float32


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model, the images that it is trained on, and what its step is measured against.

    Attributes
    ----------
    build
        The model, given the layers with which to make it and ``rngs``.
    images
        Shape of a batch.
    classes
        Number of classes; None for a network from images to images.
    at_least
        How many times faster than with the layers of Flax the step should be.
    """

    name: str
    what: str
    build: Callable[..., nnx.Module]
    images: tuple[int, ...]
    classes: int | None
    at_least: float
    transposed: bool = False

    def model(self, library: str) -> Any:
        """Return the model with the layers of "jaxconv" or "flax"."""
        layers: dict[str, Any] = {}
        if library == "flax":
            layers = {"conv": nnx.Conv} | ({"conv_transpose": nnx.ConvTranspose} if self.transposed else {})
        return jax.jit(lambda: self.build(**layers, rngs=nnx.Rngs(0)))()

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw images, and their classes or the images to be made of them."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal(self.images).astype(np.float32)
        if self.classes is None:
            return images, np.tanh(images)
        return images, rng.integers(0, self.classes, self.images[0])


CASES = (
    ModelCase(
        "cnn",
        "nn.CNN on 64 digits of 8×8, widths 16 and 32",
        lambda **layers: nn.CNN(1, 10, image_shape=(8, 8), **layers),
        (64, 8, 8, 1),
        10,
        1.0,
    ),
    ModelCase(
        "separable",
        "nn.MobileNet on 32 images of 32×32×3, widths 32, 64 and 128, two blocks each",
        lambda **layers: nn.MobileNet(3, 10, widths=(32, 64, 128), blocks=2, **layers),
        (32, 32, 32, 3),
        10,
        1.5,
    ),
    ModelCase(
        "unet",
        "nn.UNet on 8 images of 64×64, widths 16, 32 and 64",
        lambda **layers: nn.UNet(1, 1, residual=True, **layers),
        (8, 64, 64, 1),
        None,
        1.0,
        transposed=True,
    ),
)


def measure(case: ModelCase, budget: float) -> Iterator[Step]:
    """Measure the step of a model with each library; raise a RuntimeError if these are not one and the same step."""
    batch = case.batch()
    programs = {library: _Program(case, library, batch) for library in ("jaxconv", "flax")}
    losses = {library: program.losses() for library, program in programs.items()}
    in_torch: list[Callable[[], Any]] = []
    if "torch" not in peers.missing():
        from experiments.speed import models_torch

        program = models_torch.Program(case.name, nnx.to_pure_dict(programs["flax"].params), *batch, RATE)
        losses["torch"] = program.losses()
        in_torch = [program.step]
    for library, found in losses.items():
        if not np.allclose(found, losses["flax"], rtol=TOLERANCE, atol=0):
            raise RuntimeError(f"{case.name}: losses of {library} are {found}, those of flax {losses['flax']}")
    calls = [call for program in programs.values() for call in (program.alone, program.inside)]
    medians = [*_medians(calls, budget), *_medians(in_torch, budget / 4)]
    for library, program in programs.items():
        alone, inside = medians.pop(0), medians.pop(0) / STEPS
        yield Step(case.name, library, "float32", alone, inside, float(f"{program.compile_seconds:.3g}"))
    if medians:
        yield Step(case.name, "torch", "float32", medians.pop(), None, None)


def _medians(calls: list[Callable[[], Any]], budget: float) -> list[float]:
    """Time calls in turn; torch's are timed by themselves, since its threads would wait for XLA's at each operation."""
    time.sleep(max(PAUSES.values()))
    for call in calls:
        call()
    samples = timing.interleaved(calls, [0.0] * len(calls), budget)
    return [float(f"{np.median(times):.3g}") for times in samples]


class _Program:
    """A step of gradient descent, compiled alone and inside `jax.lax.scan`."""

    def __init__(self, case: ModelCase, library: str, batch: tuple[np.ndarray, np.ndarray]):
        graphdef, self.params = nnx.split(case.model(library))
        images, target = map(jnp.asarray, batch)

        def loss(params: Any) -> jax.Array:
            result = nnx.merge(graphdef, params)(images)
            if case.classes is None:
                return jnp.mean((result - target) ** 2)
            return optax.softmax_cross_entropy_with_integer_labels(result, target).mean()

        def step(params: Any) -> tuple[Any, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), value

        def loop(params: Any) -> Any:
            return lax.scan(lambda params, _: step(params), params, length=STEPS)

        compilations = []
        for _ in range(COMPILATIONS):
            jax.clear_caches()  # what was traced for another library must not count for this one
            start = time.perf_counter()
            self._step = jax.jit(step).lower(self.params).compile()
            compilations.append(time.perf_counter() - start)
        self.compile_seconds = min(compilations)
        self._loop = jax.jit(loop).lower(self.params).compile()

    def losses(self) -> tuple[float, float]:
        """Return the loss before and after a step."""
        params, first = self._step(self.params)
        return float(first), float(self._step(params)[1])

    def alone(self) -> None:
        jax.block_until_ready(self._step(self.params))

    def inside(self) -> None:
        jax.block_until_ready(self._loop(self.params))
