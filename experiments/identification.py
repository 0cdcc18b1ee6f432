"""Learn a kernel from a photograph and its filtered copy, once through convolution and once through correlation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments import data
from experiments import identification_figures as figures
from experiments import identification_layers as layers
from experiments.core import Claim, Context, Outcome
from experiments.kernels import ASYMMETRY, Kernels, collection, flip
from experiments.training import Trainer
from jaxconv import signal

OPERATIONS: dict[str, Callable[..., jax.Array]] = {"convolution": signal.convolve, "correlation": signal.correlate}
OTHER = {"convolution": "correlation", "correlation": "convolution"}
FINDS = {"convolution": "the kernel that made the picture", "correlation": "that kernel’s flip"}

SIDE = 160  # of a photograph, in pixels
WHITENING_SIDE = 13
STEPS = 40
TOLERANCE = 1e-3
# The same learning without whitening, to show what whitening does.
RAW_PHOTOGRAPH = "gravel"
RAW_STEPS = 1000
RAW_OPTIMIZERS = {"gradient descent": optax.sgd(1.0), "Adam": optax.adam(0.01)}

METHOD = """\
A learning problem is a photograph and the same photograph truly convolved with a kernel (kernel flipped, valid \
mode), computed by SciPy in float64. A layer with one free 9×9 kernel, started at random, is fitted to the pair by \
plain gradient descent on the mean squared error: once it computes jaxconv.signal.convolve, once \
jaxconv.signal.correlate. Nothing tells it which way round the kernel should come out.

A photograph’s power lies in its low frequencies, which makes this least-squares problem so badly conditioned that \
gradient descent crawls. Both sides, photograph and target, are therefore first convolved with one and the same \
whitening filter, computed from the photograph alone. As convolution commutes and associates, the filtered target is \
exactly the filtered photograph convolved with the unknown kernel: the solution stays, the ill-conditioning goes. \
Both sides are then divided by one number, so that the largest curvature is 1 and a learning rate of 1 suits all. \
(The pictures are free of noise, which whitening would amplify.) One figure shows the same learning without any of \
this.

The controls are kernels for which the flip does not matter (symmetric ones equal their flip) or changes only the \
sign (antisymmetric ones), each learned kernel used by the other operation, and learning without whitening. If the \
comparison accepted either orientation, the claims about the wrong way round would fail."""


class Problems(NamedTuple):
    """Photographs [p, h, w] and the targets that the kernels make of them [p, k, h', w']."""

    inputs: np.ndarray
    targets: np.ndarray


class Learned(NamedTuple):
    """Kernels [p, k, 9, 9] learned under one convention, and distances from the truth after each step [steps, p, k].

    `right` is the distance from the kernel that this convention should find, `wrong` that from its flip.
    """

    kernels: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


def run(context: Context) -> Outcome:
    names = list(data.PHOTOGRAPHS)[: 4 if context.quick else None]
    photographs = {name: centred(name) for name in names}
    groups = collection(context.rng(0), random=4 if context.quick else 24)
    kernels = np.stack([kernel for group in groups for kernel in group.values()])
    problems = pose(photographs.values(), kernels, whiten=True)
    drawn = np.stack([kernel for name, kernel in groups.asymmetric.items() if not name.startswith("random")])
    raw_problems = pose([centred(RAW_PHOTOGRAPH)], drawn, whiten=False)

    pieces = 4 * (1 + len(RAW_OPTIMIZERS)) + len(layers.chosen(context))
    with context.progress(total=len(OPERATIONS) * pieces, name="identification") as bar:
        learned = {c: learn(context, c, problems, kernels, optax.sgd(1.0), STEPS, bar) for c in OPERATIONS}
        raw = {
            (convention, name): learn(context, convention, raw_problems, drawn, optimizer, RAW_STEPS, bar)
            for convention in OPERATIONS
            for name, optimizer in RAW_OPTIMIZERS.items()
        }
        found = layers.study(context, bar.update)

    claims = (*judge(photographs, problems.inputs, groups, learned, raw), *layers.judge(found))
    measured = {claim.name: claim.measured for claim in claims}
    worst = max(measured[f"{convention}-finds-its-kernel"] for convention in OPERATIONS)
    nearest = min(measured[f"{convention}-not-the-other"] for convention in OPERATIONS)
    return Outcome(
        answer=(
            "A convolution layer learns the kernel. A correlation layer learns the kernel turned by 180°. "
            "Neither comes near the other’s, unless the kernel is its own flip."
        ),
        method=f"{METHOD}\n\n{layers.METHOD}",
        claims=claims,
        figures=(
            figures.gallery(groups, learned, names[0]),
            figures.orientation(groups, learned),
            figures.convergence(groups, learned, raw),
            figures.views(photographs, problems.inputs[0], groups, learned),
            figures.layers(found),
        ),
        tables=(figures.conditioning(photographs, problems.inputs, groups, learned), figures.shapes(found)),
        highlights=(
            (
                f"{2 * len(names) * len(kernels)}",
                f"kernels learned: {len(names)} photographs × {len(kernels)} kernels × 2",
            ),
            (figures.scientific(worst), "largest relative error"),
            (f"{nearest:.2f}", "least distance from the wrong way round"),
        ),
        emblem=figures.card("letter F", groups, learned, panel="emblem"),
    )


def centred(name: str) -> np.ndarray:
    """Return a square of a photograph, less its mean grey."""
    image = data.photograph(name, SIDE)
    return image - image.mean()


def pose(photographs: Iterable[np.ndarray], kernels: np.ndarray, *, whiten: bool) -> Problems:
    """Convolve every photograph with every kernel; filter both sides alike if asked to; scale both sides alike."""
    inputs, targets = [], []
    for image in photographs:
        sides = [image, *(data.filtered(image, kernel) for kernel in kernels)]
        if whiten:
            prefilter = data.whitening_filter(image, WHITENING_SIDE)
            sides = [data.filtered(side, prefilter) for side in sides]
        scale = np.sqrt(data.curvatures(sides[0], kernels.shape[-1])[-1])
        inputs.append(sides[0] / scale)
        targets.append(np.stack(sides[1:]) / scale)
    return Problems(np.stack(inputs), np.stack(targets))


def learn(
    context: Context,
    convention: str,
    problems: Problems,
    kernels: np.ndarray,
    optimizer: optax.GradientTransformation,
    steps: int,
    bar: tqdm,
) -> Learned:
    """Fit a kernel to every problem, all in one program; the starts depend on the seed, not on the convention."""
    operation = partial(OPERATIONS[convention], mode="valid")
    truth = jnp.asarray(kernels if convention == "convolution" else flip(kernels), context.dtype)
    start = context.rng(1).standard_normal((len(problems.inputs), *kernels.shape)) / kernels.shape[-1]

    def loss(guesses: jax.Array, problem: Problems, _: None) -> jax.Array:
        def error(guess: jax.Array, target: Any) -> jax.Array:
            return 0.5 * jnp.mean((operation(problem.inputs, guess) - target) ** 2)

        return jax.vmap(error)(guesses, problem.targets)

    def distances(guesses: jax.Array) -> tuple[jax.Array, ...]:
        # Relative ones, since the kernels have norm 1.
        return tuple(jnp.linalg.norm(guesses - goal, axis=(-2, -1)) for goal in (truth, flip(truth)))

    trainer = Trainer(loss, optimizer, what=f"identification by {convention}", record=distances)
    result = trainer.fit(
        jnp.asarray(start, context.dtype),
        jax.tree.map(lambda array: jnp.asarray(array, context.dtype), problems),
        steps=steps,
        chunks=4,
        tick=bar.update,
    )
    return Learned(np.asarray(result.params), *result.records)


def unseen_errors(images: Sequence[np.ndarray], kernels: np.ndarray, learned: dict[str, Learned]) -> np.ndarray:
    """Apply every learned kernel to the photograph before its own, and return the relative errors of the pictures.

    The result is [2, conventions, p, k]: first the kernels used by the convention that they were learned under, then by
    the other one.
    """
    apply = {
        convention: jax.jit(jax.vmap(partial(operation, mode="valid"), in_axes=(None, 0)))
        for convention, operation in OPERATIONS.items()
    }
    errors = np.empty((2, len(OPERATIONS), len(images), len(kernels)))
    for column in range(len(images)):
        image = images[column - 1]
        truth = np.stack([data.filtered(image, kernel) for kernel in kernels])
        for row, convention in enumerate(OPERATIONS):
            guesses = learned[convention].kernels[column]
            for exchanged, user in enumerate((convention, OTHER[convention])):
                gap = apply[user](jnp.asarray(image, guesses.dtype), guesses) - truth
                errors[exchanged, row, column] = np.linalg.norm(gap, axis=(-2, -1)) / np.linalg.norm(
                    truth, axis=(-2, -1)
                )
    return errors


def judge(
    photographs: dict[str, np.ndarray],
    whitened: np.ndarray,
    groups: Kernels,
    learned: dict[str, Learned],
    raw: dict[tuple[str, str], Learned],
) -> tuple[Claim, ...]:
    names, labels = list(photographs), [name for group in groups for name in group]
    first, second = len(groups.asymmetric), len(groups.asymmetric) + len(groups.symmetric)
    asymmetric, symmetric, antisymmetric = slice(first), slice(first, second), slice(second, None)
    claims = []

    cases = (names, labels[asymmetric])
    for convention, result in learned.items():
        claims.append(
            Claim.worst(
                f"{convention}-finds-its-kernel",
                f"By {convention}, every asymmetric kernel converges to {FINDS[convention]} (relative error).",
                result.right[-1][:, asymmetric],
                cases,
                "<",
                TOLERANCE,
            )
        )
    for convention, result in learned.items():
        claims.append(
            Claim.worst(
                f"{convention}-not-the-other",
                f"By {convention}, none comes near {FINDS[OTHER[convention]]} (relative distance).",
                result.wrong[-1][:, asymmetric],
                cases,
                ">",
                ASYMMETRY - TOLERANCE,
            )
        )

    for name, statement, sign, part in (
        ("symmetric", "Where the kernel is its own flip, both learn the same", -1, symmetric),
        ("antisymmetric", "Where the flip is the kernel’s negative, they learn opposite ones", 1, antisymmetric),
    ):
        sums = learned["convolution"].kernels[:, part] + sign * learned["correlation"].kernels[:, part]
        claims.append(
            Claim.worst(
                f"{name}-kernels",
                f"{statement} (relative difference).",
                np.linalg.norm(sums, axis=(-2, -1)),
                (names, labels[part]),
                "<",
                TOLERANCE,
                control=True,
            )
        )

    kernels = np.stack([kernel for group in groups for kernel in group.values()])
    own, _ = unseen_errors(list(photographs.values()), kernels, learned)
    _, exchanged = unseen_errors(list(whitened), kernels, learned)
    ratios = np.stack([result.right[-1] / result.wrong[-1] for result in raw.values()])
    return (
        *claims,
        Claim.worst(
            "unseen-photograph",
            "On a photograph it has not seen, each learned kernel does what the true one does (relative error).",
            own,
            (list(OPERATIONS), names, labels),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "unseen-exchanged",
            "Used by the other operation, every learned asymmetric kernel gets that photograph wrong, once whitened, "
            "so that its low frequencies do not hide the difference (relative error).",
            exchanged[..., asymmetric],
            (list(OPERATIONS), names, labels[asymmetric]),
            ">",
            ASYMMETRY / 2,
            control=True,
        ),
        Claim.worst(
            "without-whitening",
            "Whitening decides how fast, not which way: without it, though far from converged, every kernel is "
            "nearer to its own orientation than to the other (ratio of the distances).",
            ratios,
            ([f"{name} by {convention}" for convention, name in raw], [RAW_PHOTOGRAPH], labels),
            "<",
            1.0,
            control=True,
        ),
    )
