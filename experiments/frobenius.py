"""Compute one output in several ways, and a layer as one matrix whose transpose is the other convention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from experiments import data
from experiments.core import Claim, Context, Figure, Outcome, Panel, Table
from experiments.figures import Picture, scientific, signed_png, strip
from experiments.kernels import ASYMMETRY, Kernels, collection, flip
from jaxconv import signal

OPERATIONS: dict[str, Callable[..., jax.Array]] = {"convolution": signal.convolve, "correlation": signal.correlate}
OTHER = {"convolution": "correlation", "correlation": "convolution"}
WAYS = ("sum of the Hadamard product", "trace", "im2col", "block Toeplitz matrix")

SIDE = 96  # of the photograph that is whitened, in pixels
WHITENING_SIDE = 9
CROP = 32  # of the part that is filtered
TOLERANCE = 1e-12
SHOWN = "letter F"

METHOD = """\
One output of a correlation layer is the Frobenius inner product of the kernel K with the patch P of the image under \
it. It can be computed as the sum of the Hadamard product, Σ K∘P; as the trace of a matrix product, tr(KᵀP); and as a \
product with a matrix that has one patch in each row (im2col). Or the kernel, and not the image, becomes the matrix: a \
block Toeplitz matrix T, so that the whole layer is one product Tx. For convolution the same holds of the flipped \
kernel. All four are computed by NumPy and SciPy in float64, for every position of every kernel in every photograph, \
and compared with jaxconv.signal, which uses none of them here but its own algorithms.

Differences are divided by ‖K‖‖P‖, the most that an output can be by the inequality of Cauchy and Schwarz, so that \
an output near zero does not hide an error nor magnify rounding.

Training needs Tᵀ, which carries gradients from a layer’s outputs to its inputs. It is a layer again, in full mode, \
of the other convention. The claim is measured on the matrices, on random vectors, and on what jax.vjp returns.

The photographs are whitened: in a plain photograph the low frequencies, which hardly notice a flip, would hide it. \
The controls leave the flip out, in the inner products and in the transpose, and must differ; for symmetric kernels \
they must not."""


class Findings(NamedTuple):
    """Largest differences, relative to the bound of Cauchy and Schwarz or to the norm.

    `ways` is [conventions, ways, p, k], `unflipped` (the inner product with the other orientation) [conventions, p, k].
    The others are [conventions, k]: the layer's matrix by its Jacobian, the transpose against the other convention,
    against the convention itself, and what `jax.vjp` gives.
    """

    ways: np.ndarray
    unflipped: np.ndarray
    matrix: np.ndarray
    transpose: np.ndarray
    same_convention: np.ndarray
    gradient: np.ndarray


def run(context: Context) -> Outcome:
    names = list(data.PHOTOGRAPHS)[: 3 if context.quick else None]
    images = np.stack([whitened(name) for name in names])
    groups = collection(context.rng(0), random=2 if context.quick else 24)
    labels = [name for group in groups for name in group]
    kernels = np.stack([kernel for group in groups for kernel in group.values()])
    with context.progress(total=len(kernels), name="frobenius") as bar, jax.enable_x64(True):
        found = study(images, kernels, context.rng(1), bar.update)
    claims = judge(found, names, labels, groups)
    outputs = found.ways[0, 0].size * (CROP - kernels.shape[-1] + 1) ** 2
    return Outcome(
        answer=(
            "Each output is the Frobenius inner product of the kernel and the patch under it, flipped for convolution, "
            "and a layer is one matrix, whose transpose is a layer of the other convention."
        ),
        method=METHOD,
        claims=claims,
        figures=(one_output(images[0], groups), layer_matrices(groups)),
        tables=(table(found),),
        highlights=(
            (f"{len(OPERATIONS) * outputs:,}", f"outputs, each computed in {len(WAYS)} ways"),
            (scientific(found.ways.max()), "largest difference, relative"),
            (scientific(found.transpose.max()), "largest difference of a transpose from the other convention"),
        ),
    )


def whitened(name: str) -> np.ndarray:
    """Return the middle of a photograph, its spectrum flattened and its root mean square 1."""
    image = data.photograph(name, SIDE)
    image = data.filtered(image - image.mean(), data.whitening_filter(image - image.mean(), WHITENING_SIDE))
    first = (len(image) - CROP) // 2
    image = image[first : first + CROP, first : first + CROP]
    return image / np.sqrt(np.mean(image**2))


def patches(image: np.ndarray, side: int) -> np.ndarray:
    """Return the patches of an image in a row, [positions, side, side]."""
    return np.lib.stride_tricks.sliding_window_view(image, (side, side)).reshape(-1, side, side)


def layer_matrix(kernel: np.ndarray, side: int) -> np.ndarray:
    """Return the matrix of correlation with a square kernel, in `valid` mode, on square images.

    It is block Toeplitz with Toeplitz blocks: block (i, j) is the Toeplitz matrix of the kernel's row j - i.
    """
    width = len(kernel)
    count = side - width + 1
    blocks = [scipy.linalg.toeplitz(np.eye(count)[0] * row[0], np.pad(row, (0, side - width))) for row in kernel]
    matrix = np.zeros((count, count, side, side))
    for i in range(count):
        for offset, block in enumerate(blocks):
            matrix[i, :, i + offset] = block
    return matrix.reshape(count**2, side**2)


def compute(way: str, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return all inner products of the kernel with patches of the image, in a row, in one of the `WAYS`."""
    if way == "block Toeplitz matrix":
        return layer_matrix(kernel, len(image)) @ image.ravel()
    seen = patches(image, len(kernel))
    if way == "trace":
        return np.trace(kernel.T @ seen, axis1=1, axis2=2)
    if way == "im2col":
        return seen.reshape(len(seen), -1) @ kernel.ravel()
    return (kernel * seen).sum((1, 2))


def study(images: np.ndarray, kernels: np.ndarray, rng: np.random.Generator, tick: Callable[[], object]) -> Findings:
    """Compute everything for every convention, photograph and kernel."""
    side, width = images.shape[-1], kernels.shape[-1]
    bounds = np.stack([np.linalg.norm(patches(image, width), axis=(1, 2)) for image in images])
    cotangents = rng.standard_normal((len(kernels), side - width + 1, side - width + 1))
    layers = {name: jax.jit(partial(operation, mode="valid")) for name, operation in OPERATIONS.items()}
    adjoints = {name: jax.jit(partial(operation, mode="full")) for name, operation in OPERATIONS.items()}
    batched = {name: jax.jit(jax.vmap(layer, (0, None))) for name, layer in layers.items()}
    units = jnp.eye(side**2).reshape(-1, side, side)

    ways = np.empty((len(OPERATIONS), len(WAYS), len(images), len(kernels)))
    unflipped = np.empty((len(OPERATIONS), len(images), len(kernels)))
    matrix, transpose, same_convention, gradient = np.empty((4, len(OPERATIONS), len(kernels)))
    for column, kernel in enumerate(kernels):
        for row, name in enumerate(OPERATIONS):
            oriented = kernel if name == "correlation" else flip(kernel)
            outputs = np.asarray(batched[name](images, kernel)).reshape(len(images), -1)
            for number, image in enumerate(images):
                scale = bounds[number] * np.linalg.norm(kernel)
                for place, way in enumerate(WAYS):
                    gap = np.abs(compute(way, image, oriented) - outputs[number])
                    ways[row, place, number, column] = (gap / scale).max()
                gap = compute("im2col", image, flip(oriented)) - outputs[number]
                unflipped[row, number, column] = np.linalg.norm(gap) / np.linalg.norm(outputs[number])

            expected = layer_matrix(oriented, side)
            columns = np.asarray(batched[name](units, kernel)).reshape(side**2, -1).T
            matrix[row, column] = np.abs(columns - expected).max() / np.abs(kernel).max()
            cotangent = cotangents[column]
            pulled = expected.T @ cotangent.ravel()

            def distance(found: jax.Array, pulled: np.ndarray = pulled) -> float:
                return float(np.linalg.norm(np.ravel(found) - pulled) / np.linalg.norm(pulled))

            transpose[row, column] = distance(adjoints[OTHER[name]](cotangent, kernel))
            same_convention[row, column] = distance(adjoints[name](cotangent, kernel))
            _, pullback = jax.vjp(partial(layers[name], in2=jnp.asarray(kernel)), jnp.asarray(images[0]))
            gradient[row, column] = distance(pullback(jnp.asarray(cotangent))[0])
        tick()
    return Findings(ways, unflipped, matrix, transpose, same_convention, gradient)


def judge(found: Findings, names: list[str], labels: list[str], groups: Kernels) -> tuple[Claim, ...]:
    conventions = list(OPERATIONS)
    first, second = len(groups.asymmetric), len(groups.asymmetric) + len(groups.symmetric)
    asymmetric, symmetric = slice(first), slice(first, second)
    statements = (
        "Each output is the sum of the Hadamard product of kernel and patch",
        "It is the trace of the product of the transposed kernel and the patch",
        "All outputs are the product of the matrix of patches and the kernel (im2col)",
        "All outputs are the product of the kernel’s block Toeplitz matrix and the image",
    )
    return (
        *(
            Claim.worst(
                name,
                f"{statement}, flipped for convolution (difference, relative to ‖K‖‖P‖).",
                found.ways[:, place],
                (conventions, names, labels),
                "<",
                TOLERANCE,
            )
            for place, (name, statement) in enumerate(
                zip(("hadamard", "trace", "im2col", "toeplitz"), statements, strict=True)
            )
        ),
        Claim.worst(
            "unflipped-product",
            "With the kernel the other way round, the inner products of asymmetric kernels are wrong (relative error "
            "of the picture).",
            found.unflipped[..., asymmetric],
            (conventions, names, labels[asymmetric]),
            ">",
            ASYMMETRY / 2,
            control=True,
        ),
        Claim.worst(
            "layer-matrix",
            "Applied to unit images, the layer gives the columns of that matrix (difference, relative to the largest "
            "weight).",
            found.matrix,
            (conventions, labels),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "transpose",
            "The transpose of the matrix is a layer of the other convention in full mode (relative difference).",
            found.transpose,
            (conventions, labels),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "gradient",
            "Reverse-mode differentiation multiplies by that transpose (relative difference).",
            found.gradient,
            (conventions, labels),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "same-convention",
            "It is no layer of the same convention, unless the kernel is symmetric (relative difference, asymmetric "
            "kernels).",
            found.same_convention[:, asymmetric],
            (conventions, labels[asymmetric]),
            ">",
            ASYMMETRY / 2,
            control=True,
        ),
        Claim.worst(
            "symmetric-kernels",
            "For symmetric kernels it is a layer of either convention (relative difference).",
            found.same_convention[:, symmetric],
            (conventions, labels[symmetric]),
            "<",
            TOLERANCE,
            control=True,
        ),
    )


def one_output(image: np.ndarray, groups: Kernels) -> Figure:
    kernel = groups.asymmetric[SHOWN]
    patch = patches(image, len(kernel))[len(image)]
    panels = []
    for convention, oriented in (("correlation", kernel), ("convolution", flip(kernel))):
        product = oriented * patch
        pictures = (
            Picture(signed_png(patch, np.abs(patch).max()), "patch"),
            Picture(signed_png(oriented, np.abs(kernel).max()), "kernel" if oriented is kernel else "flipped kernel"),
            Picture(signed_png(product, np.abs(product).max()), "Hadamard product", f"sum {product.sum():+.6f}"),
            Picture(
                signed_png(oriented.T @ patch, np.abs(oriented.T @ patch).max()),
                "matrix product",
                f"trace {np.trace(oriented.T @ patch):+.6f}",
            ),
        )
        alt = (
            f"{convention}: a patch of 9 by 9 pixels, the letter F as it is laid on it, their product entry by entry "
            "and their matrix product. The sum of the one and the trace of the other are the same number."
        )
        panels.append(strip(convention, alt, pictures, title=convention.capitalize(), side=96, gap=14))
    return Figure(
        "output",
        "One output, twice",
        "The sum of all entries of the Hadamard product is the sum of the diagonal of the matrix product. Green is "
        "positive, magenta negative; each picture has its own scale.",
        tuple(panels),
        width=430,
    )


def layer_matrices(groups: Kernels) -> Figure:
    kernel, side = groups.asymmetric[SHOWN], 16
    matrices = {
        "correlation": layer_matrix(kernel, side),
        "convolution": layer_matrix(flip(kernel), side),
        "correlation, transposed": layer_matrix(kernel, side).T,
    }
    panels: list[Panel] = []
    for name, matrix in matrices.items():
        alt = f"The matrix of a layer ({name}): slanted bands that repeat from block to block."
        label = f"{matrix.shape[0]} × {matrix.shape[1]}"
        picture = Picture(signed_png(matrix, np.abs(kernel).max()), label)
        panels.append(strip(name, alt, (picture,), title=name.capitalize(), side=250))
    return Figure(
        "matrix",
        "A layer as one matrix",
        f"The letter F as a layer on images of {side}×{side} pixels, drawn as squares. Each row of the first two holds "
        "the kernel once, for one output; each column of the transposed one holds it once, for one gradient that comes "
        "back. Read by rows, the transposed matrix runs through the kernel in the opposite direction: it convolves.",
        tuple(panels),
        width=270,
    )


def table(found: Findings) -> Table:
    rows = [
        (way, *(scientific(found.ways[row, place].max()) for row in range(len(OPERATIONS))))
        for place, way in enumerate(WAYS)
    ]
    rest = {
        "the other orientation": found.unflipped,
        "transpose, other convention": found.transpose,
        "transpose, same convention": found.same_convention,
        "jax.vjp": found.gradient,
    }
    rows += [(name, *(scientific(each.max()) for each in values)) for name, values in rest.items()]
    return Table(
        "Largest relative differences",
        "The first four rows are relative to ‖K‖‖P‖, the others to the norm of what they should equal, or should not.",
        ("computation", *OPERATIONS),
        tuple(rows),
    )
