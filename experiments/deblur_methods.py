"""What `experiments.deblur` trains: three ways to restore a photograph, under either convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.signal
from flax import nnx

from experiments import data
from experiments.school import flip
from experiments.training import Trainer, spread, stack
from jaxconv import nn

CONVENTIONS = ("convolution", "correlation")
USES = ("own", "unflipped", "flipped")
BLUR = 9  # sides of the kernel that blurs, and of the filter that restores; both odd
FILTER = 11
NOISE = 0.02  # standard deviation; white is 1
GRAY = 0.5  # subtracted before linear layers, which then need no bias
FLOOR = 1e-3  # least intensity that Richardson-Lucy divides by
ITERATIONS = 6
WIDTHS = (8, 16)
FILTERED = 96  # side of the squares from which the Wiener filter learns
RIM = 4  # of the tiles from which the others learn, no loss looks at a rim of so many pixels: beyond it are zeros
BATCH = 8  # tiles
CHUNKS = 10  # of each training
MARGIN = 16  # the rim of a test picture that is not judged, for the same reason

Params = Any
Restore = Callable[[Params, jax.Array], jax.Array]


class Pictures(NamedTuple):
    """Photographs and what was seen of them, [photographs, height, width] in [0, 1] or nearly so."""

    sharp: np.ndarray
    seen: np.ndarray

    def inner(self, side: int) -> Pictures:
        """Return the squares in the middle."""
        cut = (self.sharp.shape[-1] - side) // 2
        return Pictures(*(pictures[:, cut : cut + side, cut : cut + side] for pictures in self))


class Solution(NamedTuple):
    """The filter of least squares, as a correlation uses it; and the range of curvatures of the squared error."""

    filter: np.ndarray
    lowest: float
    highest: float


@dataclass(frozen=True)
class Method:
    """A way to restore.

    `restore(convention)` returns a function of parameters and pictures [n, h, w]; `start(rng)` draws parameters, of
    which those with four axes, [height, width, inputs, outputs], are kernels. Where it learns from tiles, they are
    `tile` pixels wide, and Adam begins at `rate`.
    """

    name: str
    restore: Callable[[str], Restore]
    start: Callable[[np.random.Generator], Params]
    tile: int = 0
    rate: float = 0.0


def comet() -> np.ndarray:
    """Return a blur by uneven motion, a streak that fades along 30 degrees: its sum is 1, its centroid near the middle.

    Since the centroid hardly moves, its flip is another shape, and not only a shift.
    """
    y, x = np.mgrid[:BLUR, :BLUR] - (BLUR - 1) / 2
    along, across = x * np.cos(np.pi / 6) - y * np.sin(np.pi / 6), x * np.sin(np.pi / 6) + y * np.cos(np.pi / 6)
    kernel = np.exp(-(across**2)) * np.where(along >= -2, np.exp(-(along + 2) / 2.5), 0)
    return kernel / kernel.sum()


def take(names: tuple[str, ...], side: int, blur: np.ndarray, rng: np.random.Generator) -> Pictures:
    """Take photographs [side, side], truly convolved with `blur` by SciPy, kernel flipped, and with white noise added.

    They are blurred with their surroundings, so that no boundary shows.
    """
    rim = BLUR // 2
    photographs = [data.photograph(name, side + 2 * rim) for name in names]
    seen = [data.filtered(image, blur) + NOISE * rng.standard_normal((side, side)) for image in photographs]
    return Pictures(np.stack([image[rim:-rim, rim:-rim] for image in photographs]), np.stack(seen))


# --- the methods -----------------------------------------------------------------------------------------------------


def _filtering(convention: str) -> Restore:
    graph = nnx.graphdef(_layer(FILTER, convention))

    def restore(params: Params, seen: jax.Array) -> jax.Array:
        layer = nnx.merge(graph, {"kernel": params["kernel"]})
        return layer((seen - GRAY)[..., None])[..., 0] + GRAY

    return restore


def _iterating(convention: str) -> Restore:
    graph = nnx.graphdef(_layer(BLUR, convention))

    def restore(params: Params, seen: jax.Array) -> jax.Array:
        blur = nnx.merge(graph, {"kernel": blur_kernel(params)})
        seen = jnp.maximum(seen, FLOOR)[..., None]
        spread_back = adjoint(blur, seen)
        weight = spread_back(jnp.ones_like(seen))
        estimate = seen
        for power in params["power"]:
            ratio = seen / jnp.maximum(blur(estimate), FLOOR)
            estimate *= (spread_back(ratio) / weight) ** power
        return estimate[..., 0]

    return restore


def adjoint(operation: Callable[[jax.Array], jax.Array], like: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Return the transpose of a linear operation from arrays `like` this one to such arrays."""
    transpose = jax.linear_transpose(operation, like)
    return lambda array: transpose(array)[0]


def adjoint_error(kernel: np.ndarray, convention: str) -> float:
    """Return the distance of the blur's transpose from the other convention by SciPy, relative, on a test picture."""
    other = {"convolution": scipy.signal.correlate, "correlation": scipy.signal.convolve}[convention]
    picture = data.photograph("camera", 64)
    layer = nnx.merge(nnx.graphdef(_layer(BLUR, convention)), {"kernel": jnp.asarray(kernel)[..., None, None]})
    images = jnp.asarray(picture, layer.kernel.dtype)[None, ..., None]
    found = np.asarray(adjoint(layer, images)(images))[0, ..., 0]
    expected = other(picture, kernel, mode="same", method="direct")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def blur_kernel(params: Params) -> jax.Array:
    """Return the positive kernel with sum 1 that Richardson-Lucy takes for the blur, [height, width, 1, 1]."""
    return jax.nn.softmax(params["logits"], axis=(-4, -3))


class _Unnormalised(nnx.Module):
    """Stands where a normalisation would: without one, and without the bias that `norm=None` adds in its place."""

    def __init__(self, num_features: int, **options: Any):
        del num_features, options

    def __call__(self, features: jax.Array) -> jax.Array:
        return features


def _network(convention: str) -> nn.UNet:
    """Return a U-Net without normalisation, with shapes for parameters.

    Normalised features would depend on the contrast of the whole picture, and with it on its size.
    """
    options: dict[str, Any] = {"widths": WIDTHS, "residual": True, "convention": convention, "norm": _Unnormalised}
    return nnx.eval_shape(lambda: nn.UNet(1, 1, **options, rngs=nnx.Rngs(0)))


def _refining(convention: str) -> Restore:
    graph = nnx.graphdef(_network(convention))

    def restore(params: Params, seen: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)((seen - GRAY)[..., None])[..., 0] + GRAY

    return restore


def _start_of_network(rng: np.random.Generator) -> Params:
    """Draw kernels with the variances of Flax's own; biases and the last layer are zero, so that nothing is changed."""

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        biases = len(leaf.shape) == 1
        return np.zeros(leaf.shape) if biases else rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    params = jax.tree.map(draw, nnx.to_pure_dict(nnx.state(_network(CONVENTIONS[0]))))
    return params | {"head": jax.tree.map(np.zeros_like, params["head"])}


def _layer(side: int, convention: str) -> nn.Conv:
    """Return a layer of one kernel, with a shape for it. With one channel and so many taps, FFTs are fastest by far."""

    def build() -> nn.Conv:
        return nn.Conv(1, 1, (side, side), use_bias=False, convention=convention, method="fft", rngs=nnx.Rngs(0))  # type: ignore[arg-type]

    return nnx.eval_shape(build)


WIENER = Method(
    "Wiener filter", _filtering, lambda rng: {"kernel": rng.standard_normal((FILTER, FILTER, 1, 1)) / FILTER}
)
RICHARDSON_LUCY = Method(
    "Richardson–Lucy",
    _iterating,
    lambda rng: {"logits": rng.standard_normal((BLUR, BLUR, 1, 1)) / 2, "power": np.ones(ITERATIONS)},
    tile=32,
    rate=0.3,
)
UNET = Method("U-Net", _refining, _start_of_network, tile=28, rate=5e-3)


# --- learning --------------------------------------------------------------------------------------------------------


def least_squares(pictures: Pictures) -> Solution:
    """Solve for the filter in closed form, by the normal equations in float64."""
    rim = FILTER // 2
    windows = np.lib.stride_tricks.sliding_window_view(pictures.seen - GRAY, (FILTER, FILTER), axis=(1, 2))
    windows = windows.reshape(-1, FILTER**2)
    targets = pictures.sharp[:, rim:-rim, rim:-rim].ravel() - GRAY
    moments = windows.T @ windows / len(windows)
    curvatures = np.linalg.eigvalsh(moments)
    solution = np.linalg.solve(moments, windows.T @ targets / len(windows))
    return Solution(solution.reshape(FILTER, FILTER), float(curvatures[0]), float(curvatures[-1]))


def apply(solution: Solution, seen: np.ndarray) -> np.ndarray:
    """Restore pictures by the closed form, without the margin, in float64 by SciPy."""
    restored = [scipy.signal.correlate(picture - GRAY, solution.filter, mode="same") + GRAY for picture in seen]
    return np.stack(restored)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def heavy_ball(solution: Solution) -> tuple[optax.GradientTransformation, int]:
    """Return gradient descent with the momentum that is best for curvatures in this range, and how many steps it needs.

    With c the ratio of the curvatures, k steps leave about k (1 - 2 / sqrt(c))^k of the error: less than 10^-3 after
    8 sqrt(c) steps. After B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
    Computational Mathematics and Mathematical Physics 4, 1964.
    """
    slow, fast = np.sqrt(solution.lowest), np.sqrt(solution.highest)
    steps = CHUNKS * math.ceil(8 * fast / slow / CHUNKS)
    return optax.sgd(4 / (fast + slow) ** 2, momentum=((fast - slow) / (fast + slow)) ** 2), steps


def learn_filter(
    convention: str,
    pictures: Pictures,
    starts: list[Params],
    dtype: type,
    tick: Callable[[], object],
) -> Params:
    """Learn Wiener filters from all pixels of the squares in the middle, one from each start."""
    pictures, rim = pictures.inner(FILTERED), FILTER // 2
    restore = WIENER.restore(convention)
    sharp, seen = (jnp.asarray(each, dtype) for each in pictures)

    def loss(params: Params, data: None, batch: None) -> jax.Array:
        del data, batch
        gap = restore(params, seen) - sharp
        return 0.5 * jnp.mean(gap[:, rim:-rim, rim:-rim] ** 2)

    optimizer, steps = heavy_ball(least_squares(pictures))
    trainer = Trainer(loss, optimizer, what=f"Wiener filter by {convention}")
    return trainer.fit(_stacked(starts, dtype), steps=steps, chunks=CHUNKS, tick=tick).params


def learn_from_tiles(
    method: Method,
    convention: str,
    pictures: Pictures,
    starts: list[Params],
    places: np.ndarray,
    dtype: type,
    tick: Callable[[], object],
) -> Params:
    """Learn from tiles whose photographs, rows and columns are given by `places` [steps, runs, tiles, 3]."""
    restore = method.restore(convention)
    sharp, seen = (jnp.asarray(each, dtype) for each in pictures)

    def cut(photographs: jax.Array, batch: jax.Array) -> jax.Array:
        size = (1, method.tile, method.tile)
        return jax.vmap(lambda place: jax.lax.dynamic_slice(photographs, place, size)[0])(batch)

    def loss(params: Params, data: None, batch: jax.Array) -> jax.Array:
        del data
        gap = restore(params, cut(seen, batch)) - cut(sharp, batch)
        return jnp.mean(gap[:, RIM:-RIM, RIM:-RIM] ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(method.rate, len(places)))
    trainer = Trainer(loss, optimizer, what=f"{method.name} by {convention}")
    return trainer.fit(_stacked(starts, dtype), None, places, steps=len(places), chunks=CHUNKS, tick=tick).params


def draw_places(method: Method, pictures: Pictures, steps: int, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Return the photograph, the row and the column of each tile of each batch, [steps, runs, tiles, 3]."""
    photographs, side, _ = pictures.seen.shape
    shape = (steps, runs, BATCH)
    corners = rng.integers(side - method.tile + 1, size=(2, *shape))
    return np.stack([rng.integers(photographs, size=shape), *corners], -1)


def _stacked(starts: list[Params], dtype: type) -> Params:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), stack(starts))


# --- use -------------------------------------------------------------------------------------------------------------


def flip_kernels(params: Params) -> Params:
    """Turn the kernels of many runs [runs, height, width, inputs, outputs] by 180 degrees, and leave the rest."""
    return jax.tree.map(lambda leaf: flip(leaf) if leaf.ndim == 5 else leaf, params)


def restored(
    method: Method, learned: dict[str, Params], seen: np.ndarray, dtype: type
) -> dict[str, dict[str, np.ndarray]]:
    """Return the pictures [runs, photographs, h, w] that each convention's parameters make, used in three `USES`.

    Those are their own convention, the other one with the kernels as they stand, and the other one with them flipped.
    """
    images = jnp.asarray(seen, dtype)
    programs = {c: spread(method.restore(c), in_axes=(0, None)) for c in CONVENTIONS}
    results = {}
    for convention, other in (CONVENTIONS, CONVENTIONS[::-1]):
        params = learned[convention]
        uses = (
            programs[convention](params, images),
            programs[other](params, images),
            programs[other](flip_kernels(params), images),
        )
        results[convention] = {
            name: np.asarray(pictures)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
            for name, pictures in zip(USES, uses, strict=True)
        }
    return results


def psnr(pictures: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio in dB for a peak of 1, over the last two axes."""
    return -10 * np.log10(np.mean((np.asarray(pictures, float) - sharp) ** 2, (-2, -1)))
