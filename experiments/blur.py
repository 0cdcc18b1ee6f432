"""Blur a face with a symmetric kernel and an asymmetric one, and learn both kernels back from the pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments import data
from experiments.core import Claim, Context, Figure, Outcome, Panel, Table
from experiments.figures import Picture, gray_png, scientific, signed_png, strip
from experiments.identification import OPERATIONS, Learned, learn, pose
from experiments.kernels import asymmetry, flip

PHOTOGRAPH, SIDE = "astronaut", 160
SYMMETRIC, ASYMMETRIC = "Gaussian", "fading streak"
METHODS = {"convolution": "fft", "correlation": "shift"}
STEPS = 60
TOLERANCE = 1e-3  # of a kernel that was learned
EXACT = 1e-12  # of what float64 computes
EDGES = 0.01  # the share of the pixels, those with the steepest slopes, that counts as edges

METHOD = """\
The astronaut’s face is blurred by the textbook’s 5×5 kernel, rows 1 4 7 4 1, 4 16 26 16 4, 7 26 41 26 7, 4 16 26 16 \
4, 1 4 7 4 1, divided by its sum, 273. It equals its flip, so that convolution and correlation must give the same \
picture. Beside it stands a kernel of the same size that does not: a streak that fades along the diagonal, 16, 8, 4, \
2, 1, divided by 31. Pictures are computed in float64 by jaxconv.signal, in valid mode, and compared with SciPy’s. \
Convolution runs by FFT and correlation by sums of shifted images, so that equal pictures do not come from equal \
programs.

Edges are the one per cent of the pixels where the photograph’s slope, by central differences, is steepest. What the \
blur does to them is the ratio of the mean slope there, afterwards and before. A mean that hides exceptions would be \
no evidence, so the ratio at the edge that the blur flattens least is claimed to be below 1 as well. The controls \
are a kernel that does nothing and one that sharpens (twice the picture less its blur): they must not smooth.

Then the kernel is learned from the pair, photograph and blurred photograph, by gradient descent from several random \
starts, once through a convolution layer, once through a correlation layer, whitened as in the experiment \
“identification”. With the symmetric kernel both find the same. With the asymmetric one the correlation layer finds \
the flip, which shows that the first finding is the kernel’s doing, not the comparison’s."""


class Blurred(NamedTuple):
    """The face without the margin that `valid` mode loses, and its pictures by kernel and convention."""

    face: np.ndarray
    pictures: dict[tuple[str, str], np.ndarray]


def kernels_of_this_experiment() -> dict[str, np.ndarray]:
    """Return the textbook's kernel and the one beside it, both with sum 1."""
    gaussian = np.array(
        [[1, 4, 7, 4, 1], [4, 16, 26, 16, 4], [7, 26, 41, 26, 7], [4, 16, 26, 16, 4], [1, 4, 7, 4, 1]], float
    )
    streak = np.diag([16.0, 8.0, 4.0, 2.0, 1.0])
    return {SYMMETRIC: gaussian / gaussian.sum(), ASYMMETRIC: streak / streak.sum()}


def control_kernels() -> dict[str, np.ndarray]:
    """Return a kernel that does nothing, and one that sharpens."""
    identity = np.zeros((5, 5))
    identity[2, 2] = 1
    return {"identity": identity, "sharpening": 2 * identity - kernels_of_this_experiment()[SYMMETRIC]}


def run(context: Context) -> Outcome:
    face = data.photograph(PHOTOGRAPH, SIDE)
    kernels = kernels_of_this_experiment()
    with jax.enable_x64(True):
        blurred = blur(face, kernels | control_kernels())
    starts = 4 if context.quick else 32
    stacked = np.stack(list(kernels.values()))
    problems = pose([face - face.mean()], stacked, whiten=True)
    problems = jax.tree.map(lambda array: np.repeat(array, starts, axis=0), problems)
    with context.progress(total=4 * len(OPERATIONS), name="blur") as bar:
        learned = {
            convention: learn(context, convention, problems, stacked, optax.sgd(1.0), STEPS, bar)
            for convention in OPERATIONS
        }
    claims = judge(face, kernels, blurred, learned)
    measured = {claim.name: claim.measured for claim in claims}
    return Outcome(
        answer=(
            "With a symmetric kernel, convolution and correlation blur a face into the same picture and learn the same "
            "kernel from it. With an asymmetric one the pictures differ, and so do the kernels, by the flip."
        ),
        method=METHOD,
        claims=claims,
        figures=(gallery(blurred), recovery(kernels, learned)),
        tables=(table(blurred),),
        highlights=(
            (f"{100 * measured['edges-smoothed']:.0f}%", "of their slope is left to the edges"),
            (scientific(measured["symmetric-same-picture"]), "largest difference of the two blurred faces"),
            (f"{2 * 2 * starts}", f"kernels learned: 2 kernels × 2 conventions × {starts} starts"),
        ),
    )


def blur(face: np.ndarray, kernels: dict[str, np.ndarray]) -> Blurred:
    """Apply every kernel by both conventions, in the precision of the caller."""
    apply: dict[str, Callable[..., jax.Array]] = {
        name: jax.jit(partial(operation, mode="valid", method=METHODS[name])) for name, operation in OPERATIONS.items()
    }
    pictures = {
        (name, convention): np.asarray(apply[convention](face, kernel))
        for name, kernel in kernels.items()
        for convention in OPERATIONS
    }
    return Blurred(face[2:-2, 2:-2], pictures)


def slopes(image: np.ndarray) -> np.ndarray:
    """Return the magnitude of the gradient, grey values per pixel, by central differences."""
    return np.hypot(*np.gradient(image))


def kept_slopes(blurred: Blurred, name: str, convention: str = "convolution") -> np.ndarray:
    """Return the slope afterwards over the slope before, at every edge of the face."""
    before = slopes(blurred.face)
    edges = before >= np.quantile(before, 1 - EDGES)
    return slopes(blurred.pictures[name, convention])[edges] / before[edges]


def mean_kept(blurred: Blurred, name: str) -> float:
    """Return the mean slope of the edges afterwards over that before."""
    before = slopes(blurred.face)
    edges = before >= np.quantile(before, 1 - EDGES)
    return float(slopes(blurred.pictures[name, "convolution"])[edges].mean() / before[edges].mean())


def change(blurred: Blurred, name: str) -> float:
    """Return the difference of the two conventions' pictures, relative to what the kernel changes in the face."""
    convolved, correlated = (blurred.pictures[name, convention] for convention in ("convolution", "correlation"))
    return float(np.linalg.norm(convolved - correlated) / np.linalg.norm(convolved - blurred.face))


def judge(
    face: np.ndarray, kernels: dict[str, np.ndarray], blurred: Blurred, learned: dict[str, Learned]
) -> tuple[Claim, ...]:
    norms = np.linalg.norm(np.stack(list(kernels.values())), axis=(1, 2))
    starts = [f"start {index + 1}" for index in range(len(next(iter(learned.values())).kernels))]
    names = list(kernels)
    kept = kept_slopes(blurred, SYMMETRIC)
    scipy_gaps = np.array(
        [
            [
                np.abs(
                    data.filtered(face, kernel if convention == "convolution" else flip(kernel))
                    - blurred.pictures[name, convention]
                ).max()
                for convention in OPERATIONS
            ]
            for name, kernel in kernels.items()
        ]
    )
    same = np.abs(blurred.pictures[SYMMETRIC, "convolution"] - blurred.pictures[SYMMETRIC, "correlation"])
    between = np.linalg.norm(learned["convolution"].kernels - learned["correlation"].kernels, axis=(-2, -1)) / norms
    claims = [
        Claim.worst(
            "as-scipy",
            "Both blurred faces are what SciPy makes of them (largest difference of grey values in [0, 1]).",
            scipy_gaps,
            (names, list(OPERATIONS)),
            "<",
            EXACT,
        ),
        Claim(
            "symmetric-same-picture",
            "With the symmetric kernel, convolution and correlation give the same picture (largest difference of grey "
            "values in [0, 1]).",
            same.max(),
            "<",
            EXACT,
        ),
        Claim(
            "asymmetric-other-picture",
            "With the asymmetric kernel they do not: the pictures differ by more than half of what the blur does to "
            "the face (ratio).",
            change(blurred, ASYMMETRIC),
            ">",
            0.5,
            control=True,
        ),
        Claim(
            "edges-smoothed",
            "The blur takes at least a fifth off the slope of the edges (mean slope afterwards over before).",
            mean_kept(blurred, SYMMETRIC),
            "<",
            0.8,
            f"{kept.size} pixels.",
        ),
        Claim("every-edge", "No edge grows steeper (largest ratio of slopes).", kept.max(), "<", 1.0),
        Claim(
            "range-kept",
            "It never leaves the range of the face’s grey values (by how much it does; the largest).",
            max(
                blurred.pictures[SYMMETRIC, "convolution"].max() - face.max(),
                face.min() - blurred.pictures[SYMMETRIC, "convolution"].min(),
            ),
            "<",
            EXACT,
        ),
        Claim(
            "identity-smooths-nothing",
            "The kernel that does nothing leaves the slopes as they are (largest change of a ratio from 1).",
            np.abs(kept_slopes(blurred, "identity") - 1).max(),
            "<",
            EXACT,
            control=True,
        ),
        Claim(
            "sharpening",
            "The kernel that sharpens makes edges steeper (mean slope afterwards over before).",
            mean_kept(blurred, "sharpening"),
            ">",
            1.0,
            control=True,
        ),
    ]
    claims += [
        Claim.worst(
            f"{convention}-recovers",
            f"From the pair, {convention} learns {'the kernel' if convention == 'convolution' else 'its flip'}, from "
            "every start (relative error).",
            result.right[-1] / norms,
            (starts, names),
            "<",
            TOLERANCE,
        )
        for convention, result in learned.items()
    ]
    place = names.index(ASYMMETRIC)
    claims += [
        Claim.worst(
            "symmetric-same-kernel",
            "Of the symmetric kernel, both learn the same (relative difference).",
            between[:, names.index(SYMMETRIC)],
            (starts,),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "asymmetric-other-kernel",
            "Of the asymmetric one they do not: neither learns the other’s (relative distance).",
            np.stack([result.wrong[-1][:, place] / norms[place] for result in learned.values()]),
            (list(learned), starts),
            ">",
            asymmetry(kernels[ASYMMETRIC]) / 2,
            control=True,
        ),
    ]
    return tuple(claims)


def gallery(blurred: Blurred) -> Figure:
    panels: list[Panel] = []
    for name in (SYMMETRIC, ASYMMETRIC):
        convolved, correlated = (blurred.pictures[name, convention] for convention in ("convolution", "correlation"))
        difference = convolved - correlated
        pictures = (
            Picture(gray_png(blurred.face, 0, 1), "photograph", pixelated=False),
            Picture(gray_png(convolved, 0, 1), "convolved", pixelated=False),
            Picture(gray_png(correlated, 0, 1), "correlated", pixelated=False),
            Picture(signed_png(difference, 0.25), "difference", f"at most {scientific(np.abs(difference).max())}"),
        )
        alt = (
            f"{name}: an astronaut's face, the same convolved and correlated with the kernel, and the difference of "
            f"the two, {'empty' if name == SYMMETRIC else 'along all edges'}."
        )
        panels.append(strip(name, alt, pictures, title=f"{name} kernel", side=150))
    return Figure(
        "faces",
        "One face, two kernels, two conventions",
        "The symmetric kernel gives one picture, whichever way it is laid on. The asymmetric one shifts the face one "
        "way under convolution and the other way under correlation: the difference (green positive, magenta negative, "
        "full colour at a quarter of the range) follows the edges.",
        tuple(panels),
        width=650,
    )


def recovery(kernels: dict[str, np.ndarray], learned: dict[str, Learned]) -> Figure:
    panels = []
    for index, (name, kernel) in enumerate(kernels.items()):
        limit, norm = np.abs(kernel).max(), np.linalg.norm(kernel)
        pictures = [Picture(signed_png(kernel, limit), "true kernel")]
        for convention, result in learned.items():
            found = result.kernels[0, index]
            error = np.linalg.norm(found - kernel) / norm
            pictures.append(Picture(signed_png(found, limit), f"by {convention}", f"off by {scientific(error)}"))
        other = "the same" if name == SYMMETRIC else "its rotation by 180 degrees"
        alt = f"{name}: the kernel, the one learned by convolution, and the one learned by correlation, {other}."
        panels.append(strip(name, alt, pictures, title=name, side=110))
    return Figure(
        "kernels",
        "The kernels, learned back from the pictures",
        "From the first start. Beneath: the relative distance from the true kernel.",
        tuple(panels),
        width=370,
    )


def table(blurred: Blurred) -> Table:
    rows = []
    for name in dict.fromkeys(name for name, _ in blurred.pictures):
        convolved, correlated = (blurred.pictures[name, convention] for convention in OPERATIONS)
        gap = np.abs(convolved - correlated).max()
        rows.append((name, f"{100 * mean_kept(blurred, name):.1f}%", scientific(gap)))
    return Table(
        "What each kernel does",
        "The mean slope that is left to the edges, and the largest difference between the faces by convolution and by "
        "correlation, in grey values from 0 to 1.",
        ("kernel", "slope of edges", "conventions differ by"),
        tuple(rows),
    )
