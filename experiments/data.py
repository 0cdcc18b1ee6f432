"""Real images that arrive inside Python packages: nothing here downloads anything."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import matplotlib.cbook
import numpy as np
import scipy.signal
import skimage.data
from sklearn.datasets import load_digits


class Source(NamedTuple):
    """Where a photograph comes from, and where in it (fraction of its height, of its width) something is to be seen."""

    credit: str
    center: tuple[float, float] = (0.5, 0.5)


# Of scikit-image's photographs, some that its package contains (others are fetched at run time), with their sources as
# its documentation gives them.
PHOTOGRAPHS = {
    "astronaut": Source("Eileen Collins; NASA, public domain", (0.22, 0.43)),
    "camera": Source("Cameraman; Lav Varshney, CC0", (0.3, 0.45)),
    "brick": Source("Brick wall; CC0 Textures, CC0"),
    "coins": Source("Greek coins from Pompeii; Brooklyn Museum, no known restrictions"),
    "coffee": Source("Cup at the Pikolo Espresso Bar; Rachel Michetti, CC0"),
    "grass": Source("Grass; linolafett on DeviantArt, CC0"),
    "gravel": Source("Gravel; CC0 Textures, CC0"),
    "moon": Source("Surface of the Moon; scikit-image"),
    "rocket": Source("Launch of DSCOVR; SpaceX, public domain"),
    "chelsea": Source("Chelsea the cat; Stéfan van der Walt, CC0", (0.38, 0.4)),
}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


@cache
def photograph(name: str, side: int) -> np.ndarray:
    """Return a square out of a photograph as grey values in [0, 1], float64."""
    if name not in PHOTOGRAPHS:
        raise ValueError(f"unknown photograph {name!r}; known are {', '.join(PHOTOGRAPHS)}")
    pixels = getattr(skimage.data, name)() / 255.0
    gray = pixels @ LUMINANCE if pixels.ndim == 3 else pixels
    if side > min(gray.shape):
        raise ValueError(
            f"no square of {side} pixels in photograph {name!r}, which has {gray.shape[0]} x {gray.shape[1]}"
        )
    top, left = (
        round(np.clip(center * length - side / 2, 0, length - side))
        for center, length in zip(PHOTOGRAPHS[name].center, gray.shape, strict=True)
    )
    return gray[top : top + side, left : left + side]


def patch_covariance(image: np.ndarray, side: int) -> np.ndarray:
    """Return the second moments of all `side` x `side` patches: the Hessian of learning a kernel of that size."""
    patches = np.lib.stride_tricks.sliding_window_view(image, (side, side)).reshape(-1, side * side)
    return patches.T @ patches / len(patches)


def curvatures(image: np.ndarray, side: int) -> np.ndarray:
    """Return the eigenvalues of that Hessian in ascending order."""
    return np.linalg.eigvalsh(patch_covariance(image, side))


def whitening_filter(image: np.ndarray, side: int) -> np.ndarray:
    """Return a `side` x `side` filter that flattens the spectrum of `image`: the middle row of C^(-1/2).

    C is the covariance of the image's patches; this is zero-phase component analysis (A. J. Bell and T. J. Sejnowski,
    "The 'independent components' of natural scenes are edge filters", Vision Research 37, 1997) for one pixel. It
    depends on the image alone.
    """
    values, vectors = np.linalg.eigh(patch_covariance(image, side))
    middle = side * side // 2
    return ((vectors[middle] / np.sqrt(values)) @ vectors.T).reshape(side, side)


def filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve truly, kernel flipped, in float64 by SciPy; `valid` mode."""
    return scipy.signal.convolve(image, kernel, mode="valid")


def electrodes() -> np.ndarray:
    """Return an electroencephalogram, 800 samples of 4 electrodes, each in units of its own standard deviation.

    It is among matplotlib's sample data, which say neither whose it is nor how fast it was sampled.
    """
    samples = np.fromfile(_sample("eeg.dat"), float).reshape(800, 4)
    return (samples - samples.mean(0)) / samples.std(0)


def membrane() -> np.ndarray:
    """Return the potential of a cell's membrane, 12,000 samples, out of matplotlib's sample data."""
    samples = np.fromfile(_sample("membrane.dat"), np.float32).astype(float)
    return (samples - samples.mean()) / samples.std()


def _sample(name: str) -> str:
    """Return the path of a file of matplotlib's sample data."""
    return str(matplotlib.cbook.get_sample_data(name, asfileobj=False))


def colours(name: str, side: int) -> np.ndarray:
    """Return a square out of the middle of a colour photograph, [side, side, 3], each channel less its mean."""
    pixels = getattr(skimage.data, name)() / 255.0
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    return square - square.mean((0, 1))


class Examples(NamedTuple):
    """Examples to learn from, channels last, and their classes; and others for a test."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits(rng: np.random.Generator, test: int = 360) -> Examples:
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8 pixels in [0, 1], split at random.

    (E. Alpaydin and C. Kaynak, UCI repository, 1998.)
    """
    pixels, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(labels))
    images, labels = np.reshape(pixels, (-1, 8, 8, 1))[order] / 16.0, np.asarray(labels)[order]
    return Examples(images[test:], labels[test:], images[:test], labels[:test])


def electrode_windows(length: int = 64, every: int = 8, train: int = 600) -> Examples:
    """Return stretches of single electrodes, [windows, length, 1], to tell which of four; the last are the test."""
    samples = electrodes()

    def cut(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        windows = np.lib.stride_tricks.sliding_window_view(part, length, 0)[::every]  # [windows, electrodes, length]
        return windows.reshape(-1, length, 1), np.tile(np.arange(4), len(windows))

    return Examples(*cut(samples[:train]), *cut(samples[train:]))


def blob_volumes(rng: np.random.Generator, count: int = 240, test: int = 60, side: int = 8) -> Examples:
    """Return made volumes, [volumes, side, side, side, 1], of scikit-image's blobs in three sizes, to tell the size."""
    labels = np.arange(count + test) % 3
    volumes = [
        skimage.data.binary_blobs(side, blob_size_fraction=size, n_dim=3, rng=rng)
        for size in np.array([0.1, 0.2, 0.35])[labels]
    ]
    volumes = np.stack(volumes)[..., None] - 0.5
    return Examples(volumes[:count], labels[:count], volumes[count:], labels[count:])


TEXTURES = ("brick", "grass", "gravel")


def textures(rng: np.random.Generator, side: int = 12, train: int = 3000, test: int = 1000) -> Examples:
    """Return patches of three textures, `train` and `test` of each, which are the classes.

    They are cut at random from the photographs at half their resolution, those of the test from the lower two fifths,
    which no other patch touches. Each has mean 0 and standard deviation 1, so that brightness and contrast give nothing
    away.
    """

    def cut(region: np.ndarray, count: int) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(region, (side, side))
        patches = windows[rng.integers(windows.shape[0], size=count), rng.integers(windows.shape[1], size=count)]
        centred = patches - patches.mean((1, 2), keepdims=True)
        return centred / centred.std((1, 2), keepdims=True)

    parts: list[list[np.ndarray]] = [[], []]
    for name in TEXTURES:
        photo = photograph(name, 512).reshape(256, 2, 256, 2).mean((1, 3))
        for part, region, count in zip(parts, (photo[:154], photo[154:]), (train, test), strict=True):
            part.append(cut(region, count))
    images, test_images = (np.concatenate(part)[..., None] for part in parts)
    labels, test_labels = (np.repeat(np.arange(len(TEXTURES)), count) for count in (train, test))
    return Examples(images, labels, test_images, test_labels)
