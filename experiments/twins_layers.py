"""Twins of other shapes: networks for signals and volumes, with many channels, strides and dilated filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments import data
from experiments.core import Claim, Context
from experiments.school import Comparison, School, distance, flip_network
from jaxconv.nn import Conv

OPTIMIZERS = ("Adam", "Adafactor", "Muon")

METHOD = """\
Further twins, in float64, are networks of other shapes: two layers of jaxconv.nn.Conv, the first with a stride of 2, \
the second with filters dilated by 2, and a dense layer. One tells, from windows of an electroencephalogram \
(matplotlib’s sample data), which of four electrodes was recorded; one reads the digits with 32 and 64 channels; one \
tells the size of blobs in volumes, which are made, by scikit-image’s binary_blobs, since no installed package \
contains real ones of a useful size. They learn for fewer steps, by the optimisers that scale gradients: Adam, \
Adafactor and Muon."""


class Layer(NamedTuple):
    features: int
    side: int
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Shape:
    """A network and its task."""

    name: str
    examples: Callable[[np.random.Generator], data.Examples]
    ndim: int
    side: int
    classes: int
    layers: tuple[Layer, ...]


SHAPES = (
    Shape("signal", lambda _: data.electrode_windows(), 1, 64, 4, (Layer(16, 7, stride=2), Layer(32, 5, dilation=2))),
    Shape("image", data.digits, 2, 8, 10, (Layer(32, 3, stride=2), Layer(64, 3, dilation=2))),
    Shape("made volume", data.blob_volumes, 3, 8, 3, (Layer(8, 3, stride=2), Layer(8, 3, dilation=2))),
)


class Stack(nnx.Module):
    """Convolutions with rectifiers, and a dense layer."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs, **options: Any):
        convs, features, side = [], 1, shape.side
        for layer in shape.layers:
            convs.append(
                Conv(
                    features,
                    layer.features,
                    (layer.side,) * shape.ndim,
                    strides=layer.stride,
                    kernel_dilation=layer.dilation,
                    rngs=rngs,
                    **options,
                )
            )
            features, side = layer.features, -(-side // layer.stride)
        self.convs = nnx.List(convs)
        self.head = nnx.Linear(features * side**shape.ndim, shape.classes, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        features = inputs
        for conv in self.convs:
            features = nnx.relu(conv(features))
        return self.head(features.reshape(len(features), -1))


@dataclass(frozen=True)
class StackNetwork:
    shape: Shape
    convention: str
    method: str

    def build(self) -> Stack:
        options = {"convention": self.convention, "method": self.method}
        return nnx.eval_shape(lambda: Stack(self.shape, nnx.Rngs(0), **options))


class Pair(NamedTuple):
    """A twin beside the reference, and the same network from the unflipped start; `moved` as `Comparison.drift`."""

    twin: Comparison
    unflipped: Comparison
    moved: np.ndarray


def chosen(context: Context) -> tuple[Shape, ...]:
    return SHAPES[:1] if context.quick else SHAPES


def study(context: Context, seeds: list[int], steps: int, tick: Callable[[], object]) -> dict[str, Pair]:
    found = {}
    for shape in chosen(context):
        school = School(shape.examples(context.rng(3)), seeds, steps, np.float64, tick, OPTIMIZERS)
        reference = StackNetwork(shape, "correlation", "xla")
        network = replace(reference, convention="convolution", method="fft")
        start = school.start(reference)
        course = school.train(reference, start)
        twin = school.compare(course, school.train(network, flip_network(start)), flipped=True)
        unflipped = school.compare(course, school.train(network, start))
        moved = distance([layer[:1] for layer in course.filters], course.filters)
        found[shape.name] = Pair(twin, unflipped, moved)
    return found


def judge(found: dict[str, Pair], tolerance: float) -> tuple[Claim, ...]:
    gaps = np.stack([pair.twin.gap for pair in found.values()])
    steps, seeds = (
        [f"{axis} {index}" for index in range(size)]
        for axis, size in zip(("step", "seed"), gaps.shape[1:], strict=False)
    )
    names, layers = list(found), ["layer 1", "layer 2"]
    return (
        Claim.worst(
            "shapes-equal-losses",
            "Twins for signals, with strides, dilation and many channels, and for volumes have equal losses too "
            "(absolute difference, nats).",
            gaps,
            (names, steps, seeds, OPTIMIZERS),
            "<",
            tolerance,
        ),
        Claim.worst(
            "shapes-flipped-filters",
            "After every step the filters of these twins are each other’s flip (relative difference).",
            np.stack([pair.twin.drift for pair in found.values()]),
            (names, layers, steps, seeds, OPTIMIZERS),
            "<",
            tolerance,
        ),
        Claim.worst(
            "shapes-unflipped-start",
            "Started from unflipped filters, these networks differ at step 0 already (difference of losses, nats).",
            np.stack([pair.unflipped.gap[0] for pair in found.values()]),
            (names, seeds, OPTIMIZERS),
            ">",
            1e-3,
            control=True,
        ),
        Claim.worst(
            "shapes-filters-move",
            "Training moves the filters of these networks (relative distance).",
            np.stack([pair.moved[:, -1] for pair in found.values()]),
            (names, layers, seeds, OPTIMIZERS),
            ">",
            0.01,
            control=True,
        ),
    )
