"""The same with layers of many shapes: signals and volumes, channels, strides and dilation, and five optimisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
import skimage.data

from experiments import data
from experiments.core import Claim, Context
from experiments.kernels import ASYMMETRY
from experiments.optimizers import OPTIMIZERS, choice
from experiments.training import Trainer
from jaxconv import lax

Convention = Literal["convolution", "correlation"]
CONVENTIONS: tuple[Convention, ...] = ("convolution", "correlation")
STEPS = 300
TOLERANCE = 1e-3
RATES = {"SGD": 1.0, "momentum": 0.3, "Adam": 0.03, "Adafactor": 0.2, "Muon": 0.05}
EPS = 1e-6  # of gradients, which are near 1 at the start

METHOD = """\
The last part leaves photographs and single kernels for layers as networks have them, computed by \
jaxconv.lax.conv_general_dilated: signals (an electroencephalogram of four electrodes, the potential of a cell’s \
membrane), colour photographs and volumes, many channels, strides, dilated kernels, under five optimisers. No \
installed package contains a real volume of a useful size; the volumes are made, by scikit-image’s binary_blobs. The \
input is whitened beforehand, space and channels together; the target is made of it by SciPy in float64, channel by \
channel, with the zeros of a dilated kernel written out and the samples that a stride skips left out afterwards. Each \
layer learns kernels with normal entries, and one that equals its flip, which is the control."""


@dataclass(frozen=True)
class Layer:
    """A layer and what it sees: `source` returns [*space, channels]."""

    name: str
    source: Callable[[np.random.Generator], np.ndarray]
    kernel: tuple[int, ...]  # [*space, inputs, outputs]
    stride: int = 1
    dilation: int = 1
    whitening: int = 5  # side of the whitening filter

    @property
    def ndim(self) -> int:
        return len(self.kernel) - 2


def _patches(rng: np.random.Generator) -> np.ndarray:
    """Every 2×2 pixels of a colour photograph as one with twelve channels, as networks do that see patches."""
    del rng
    square = data.colours("coffee", 160)
    return square.reshape(80, 2, 80, 2, 3).swapaxes(1, 2).reshape(80, 80, 12)


def _blobs(rng: np.random.Generator) -> np.ndarray:
    blobs = skimage.data.binary_blobs(24, blob_size_fraction=0.15, n_dim=3, rng=rng)[..., None].astype(float)
    return blobs - blobs.mean()


LAYERS = (
    Layer("electrodes", lambda _: data.electrodes(), (7, 4, 8), whitening=9),
    Layer("membrane, stride 2, dilation 3", lambda _: data.membrane()[:, None], (15, 1, 8), 2, 3, whitening=31),
    Layer("colours, stride 2", lambda _: data.colours("chelsea", 96), (5, 5, 3, 8), 2, whitening=7),
    Layer("12 channels, dilation 2", _patches, (3, 3, 12, 16), dilation=2),
    Layer("made volume", _blobs, (3, 3, 3, 1, 8)),
    Layer("made volume, stride 2, dilation 2", _blobs, (3, 3, 3, 1, 8), 2, 2),
)


class Lesson(NamedTuple):
    """What a layer sees [1, *space, inputs], kernels [k, *space, inputs, outputs] of norm 1, targets [k, 1, ...]."""

    input: np.ndarray
    kernels: np.ndarray
    targets: np.ndarray


class Courses(NamedTuple):
    """Kernels learned by one layer [k, optimisers, ...], and distances after each step [steps, k, optimisers].

    `right` is the distance from the kernel that the convention should find, `wrong` that from its flip.
    """

    kernels: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


Found = dict[str, dict[str, Courses]]


def flip(kernels: np.ndarray, ndim: int) -> np.ndarray:
    """Reverse the spatial axes of kernels [..., *space, inputs, outputs], by NumPy."""
    return np.flip(kernels, tuple(range(-2 - ndim, -2)))


def whitened(signal: np.ndarray, side: int) -> np.ndarray:
    """Flatten the spectrum of a signal [*space, channels], channels mixed: C^(-1/2), as in `data.whitening_filter`."""
    ndim, channels = signal.ndim - 1, signal.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(signal, (side,) * ndim, tuple(range(ndim)))
    patches = windows.reshape(-1, channels * side**ndim)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    values = np.maximum(values, 1e-6 * values[-1])  # what the signal hardly has is not made out of rounding
    middle = np.arange(channels) * side**ndim + side**ndim // 2
    flat = patches @ (vectors / np.sqrt(values)) @ vectors[middle].T
    return flat.reshape(*windows.shape[:ndim], channels)


def response(layer: Layer, signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve truly, by SciPy in float64, channel by channel: zeros written out, and what a stride skips left out."""
    spread = [layer.dilation * (side - 1) + 1 for side in kernel.shape[: layer.ndim]]
    dilated = np.zeros((*spread, *kernel.shape[layer.ndim :]))
    dilated[(slice(None, None, layer.dilation),) * layer.ndim] = kernel
    outputs = [
        sum(
            scipy.signal.convolve(signal[..., c], dilated[..., c, o], mode="valid", method="direct")
            for c in range(signal.shape[-1])
        )
        for o in range(kernel.shape[-1])
    ]
    return np.stack(outputs, -1)[(slice(None, None, layer.stride),) * layer.ndim]


def pose(layer: Layer, rng: np.random.Generator, count: int) -> Lesson:
    """Draw `count` kernels and a symmetric one, and the responses to them, scaled for a learning rate of 1."""
    signal = whitened(layer.source(rng), layer.whitening)
    kernels = rng.standard_normal((count + 1, *layer.kernel))
    kernels[-1] += flip(kernels[-1], layer.ndim)
    kernels /= np.linalg.norm(kernels.reshape(count + 1, -1), axis=-1).reshape(-1, *[1] * (layer.ndim + 2))
    windows = [layer.dilation * (side - 1) + 1 for side in layer.kernel[: layer.ndim]]
    axes = tuple(range(layer.ndim))
    patches = np.lib.stride_tricks.sliding_window_view(signal, windows, axes)
    steps = (slice(None, None, layer.stride),) * layer.ndim
    taps = (slice(None, None, layer.dilation),) * layer.ndim
    flat = patches[(*steps, slice(None), *taps)].reshape(-1, np.prod(layer.kernel[:-1]))
    signal = signal / np.sqrt(np.linalg.eigvalsh(flat.T @ flat / len(flat))[-1])
    return Lesson(signal[None], kernels, np.stack([response(layer, signal, kernel)[None] for kernel in kernels]))


def learn(
    context: Context, convention: Convention, layer: Layer, lesson: Lesson, tick: Callable[[], object]
) -> Courses:
    """Learn every kernel under every optimiser, in one program; the starts depend on the seed alone."""
    space = "XYZ"[: layer.ndim]
    respond = partial(
        lax.conv_general_dilated,
        jnp.asarray(lesson.input, context.dtype),
        window_strides=(layer.stride,) * layer.ndim,
        padding="VALID",
        rhs_dilation=(layer.dilation,) * layer.ndim,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        convention=convention,
    )

    def stacked(guesses: dict[str, jax.Array]) -> jax.Array:
        return jnp.stack([guesses[name] for name in OPTIMIZERS])

    def loss(guesses: dict[str, jax.Array], target: jax.Array, _: None) -> jax.Array:
        gaps = jax.vmap(respond)(stacked(guesses)) - target
        return 0.5 * (gaps**2).mean(tuple(range(1, gaps.ndim - 1))).sum(-1)

    start = context.rng(4).standard_normal(lesson.kernels.shape) / np.sqrt(np.prod(layer.kernel))
    trainer = Trainer(
        loss, choice(RATES, STEPS, EPS), what=f"identification, {layer.name}, by {convention}", record=stacked
    )
    fit = trainer.fit(
        dict.fromkeys(OPTIMIZERS, jnp.asarray(start, context.dtype)),
        jnp.asarray(lesson.targets, context.dtype),
        steps=STEPS,
        tick=tick,
    )
    truth = lesson.kernels if convention == "convolution" else flip(lesson.kernels, layer.ndim)
    right, wrong = (norm(fit.records - goal[:, None]) for goal in (truth, flip(truth, layer.ndim)))
    return Courses(fit.records[-1], right, wrong)


def norm(kernels: np.ndarray) -> np.ndarray:
    """Return the norms of kernels [steps, k, optimisers, ...]."""
    return np.linalg.norm(kernels.reshape(*kernels.shape[:3], -1), axis=-1)


def chosen(context: Context) -> tuple[Layer, ...]:
    return (LAYERS[0], LAYERS[-1]) if context.quick else LAYERS


def study(context: Context, tick: Callable[[], object]) -> Found:
    """Return what was learned, by the name of the layer and the convention."""
    found = {}
    for layer in chosen(context):
        lesson = pose(layer, context.rng(3, LAYERS.index(layer)), 1 if context.quick else 3)
        found[layer.name] = {convention: learn(context, convention, layer, lesson, tick) for convention in CONVENTIONS}
    return found


def judge(found: Found) -> tuple[Claim, ...]:
    def gather(pick: Callable[[Courses], np.ndarray]) -> np.ndarray:
        return np.stack([[pick(courses) for courses in pair.values()] for pair in found.values()])

    layers, count = list(found), len(next(iter(found.values()))["convolution"].kernels)
    names = [*(f"kernel {index + 1}" for index in range(count - 1)), "symmetric kernel"]
    return (
        Claim.worst(
            "layers-find-their-kernels",
            "Layers for signals, pictures and volumes, of several channels, strided and dilated, find their kernels "
            "under every optimiser, convolution as they are and correlation flipped (relative error).",
            gather(lambda courses: courses.right[-1]),
            (layers, CONVENTIONS, names, OPTIMIZERS),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "layers-not-the-other",
            "None of these layers comes near the other convention’s kernel (relative distance).",
            gather(lambda courses: courses.wrong[-1][:-1]),
            (layers, CONVENTIONS, names[:-1], OPTIMIZERS),
            ">",
            ASYMMETRY - TOLERANCE,
        ),
        Claim.worst(
            "layers-symmetric-kernels",
            "In layers of these shapes too, a kernel that is its own flip is found in the wrong orientation as well "
            "(relative distance).",
            gather(lambda courses: courses.wrong[-1][-1]),
            (layers, CONVENTIONS, OPTIMIZERS),
            "<",
            TOLERANCE,
            control=True,
        ),
    )
