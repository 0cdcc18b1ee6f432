"""Kernels with a direction to them, for which flipping matters, and others for which it does not.

All are `side` x `side`, float64, scaled to ||k|| = 1. `flip` turns a kernel by 180 degrees.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# A kernel counts as asymmetric if ||k - flip k|| is at least this fraction of ||k||; 2 is the most there can be.
ASYMMETRY = 0.5

LETTER_F = """
    .........
    ..#####..
    ..#......
    ..#......
    ..####...
    ..#......
    ..#......
    ..#......
    .........
"""


class Kernels(NamedTuple):
    """Kernels by name; those of `symmetric` equal their flip, those of `antisymmetric` its negative."""

    asymmetric: dict[str, np.ndarray]
    symmetric: dict[str, np.ndarray]
    antisymmetric: dict[str, np.ndarray]


def flip(kernel: Any) -> Any:
    """Reverse the last two axes, with NumPy: the experiments judge the library, so they do not ask it."""
    return kernel[..., ::-1, ::-1]


def asymmetry(kernel: np.ndarray) -> float:
    """Return ||k - flip k|| / ||k||: 0 if symmetric, 2 if antisymmetric, about the root of 2 if random."""
    return float(np.linalg.norm(kernel - flip(kernel)) / np.linalg.norm(kernel))


def collection(rng: np.random.Generator, random: int, side: int = 9) -> Kernels:
    """Return the named kernels and `random` more with normal entries; raise if one is not what it says."""
    if side < 9:
        raise ValueError(f"side is {side}; the drawn kernels need at least 9")
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    along, across = _rotated(y, x, np.pi / 6)
    gaussian = np.exp(-(x**2 + y**2) / 8)
    noise = rng.standard_normal((random + 2, side, side))

    asymmetric = {
        "decaying motion blur": np.exp(-(across**2) / 0.8) * np.where(along >= -3.2, np.exp(-(along + 3.2) / 2.5), 0),
        "Gabor, phase π/4": np.exp(-(x**2 + y**2) / 7) * np.cos(1.1 * along + np.pi / 4),
        "camera shake": _shake(rng, side),
        "letter F": _drawing(LETTER_F, side),
        "spiral": _spiral(y, x),
        "crescent": np.exp(-((np.hypot(x, y) - 2.8) ** 2) / 0.8) * np.exp(2 * np.cos(np.arctan2(y, x) - 0.6)),
        "off-centre blur": np.exp(-((x - 1.5) ** 2 + (y + 2) ** 2) / 3),
        "ramp edge": np.exp(-(across**2) / 6) * (along + 4) * (np.abs(along) < 4),
    } | {f"random {index + 1}": kernel for index, kernel in enumerate(noise[:random])}
    symmetric = {
        "Gaussian": gaussian,
        "Laplacian of Gaussian": (1 - (x**2 + y**2) / 8) * gaussian,
        "Gabor, phase 0": np.exp(-(x**2 + y**2) / 7) * np.cos(1.1 * along),
        "random, symmetric": noise[random] + flip(noise[random]),
    }
    antisymmetric = {
        "Sobel, horizontal": _centred(np.outer([1, 2, 1], [1, 0, -1]), side),
        "Sobel, vertical": _centred(np.outer([1, 0, -1], [1, 2, 1]), side),
        "Gabor, phase π/2": np.exp(-(x**2 + y**2) / 7) * np.sin(1.1 * along),
        "random, antisymmetric": noise[random + 1] - flip(noise[random + 1]),
    }
    kernels = Kernels(
        *({n: k / np.linalg.norm(k) for n, k in group.items()} for group in (asymmetric, symmetric, antisymmetric))
    )
    check(kernels)
    return kernels


def check(kernels: Kernels) -> None:
    """Raise ValueError for a kernel that is not as asymmetric, symmetric or antisymmetric as its group says."""
    for name, kernel in kernels.asymmetric.items():
        if asymmetry(kernel) < ASYMMETRY:
            raise ValueError(
                f"kernel {name!r} is nearly its own flip: ||k - flip k|| is {asymmetry(kernel):.3f} ||k||, "
                f"at least {ASYMMETRY} is needed for the two conventions to be told apart"
            )
    for sign, group in ((1, kernels.symmetric), (-1, kernels.antisymmetric)):
        for name, kernel in group.items():
            if not np.allclose(flip(kernel), sign * kernel, rtol=0, atol=1e-12):
                raise ValueError(f"kernel {name!r} should equal {sign:+d} times its flip, and does not")


def _rotated(y: np.ndarray, x: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates along a direction and across it."""
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)


def _centred(small: np.ndarray, side: int) -> np.ndarray:
    kernel = np.zeros((side, side))
    first = tuple((side - n) // 2 for n in small.shape)
    kernel[first[0] : first[0] + small.shape[0], first[1] : first[1] + small.shape[1]] = small
    return kernel


def _drawing(drawing: str, side: int) -> np.ndarray:
    return _centred(np.array([[mark == "#" for mark in line] for line in drawing.split()], float), side)


def _spiral(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Draw one arm that winds outwards and grows fainter."""
    turn = np.linspace(0, 2.6 * np.pi, 300)
    radius = 0.3 + 3.7 * turn / turn[-1]
    spots = (x[..., None] - radius * np.cos(turn)) ** 2 + (y[..., None] - radius * np.sin(turn)) ** 2
    return (np.exp(-spots / 0.3) * (1.2 - turn / turn[-1])).max(-1)


def _shake(rng: np.random.Generator, side: int) -> np.ndarray:
    """Follow a hand that trembles while the shutter is open: a smooth random path through the kernel."""
    steps = np.cumsum(rng.standard_normal((2, 200)), -1)  # a random velocity
    path = np.cumsum(steps, -1)
    path -= (path.max(-1, keepdims=True) + path.min(-1, keepdims=True)) / 2
    path *= (side - 3) / 2 / np.abs(path).max(-1, keepdims=True)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    light = np.exp(-np.linspace(0, 1.5, 200))  # the lamp dims, so that the path has a beginning and an end
    spots = (y[..., None] - path[0]) ** 2 + (x[..., None] - path[1]) ** 2
    return (np.exp(-spots / 0.5) * light).sum(-1)
