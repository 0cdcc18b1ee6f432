"""Measure which algebraic laws convolution obeys, which of them correlation obeys, and what holds in their stead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.signal
from tqdm import tqdm

from experiments import data
from experiments.core import Claim, Context, Figure, Outcome, Table
from experiments.figures import Picture, scientific, signed_png, strip
from experiments.kernels import ASYMMETRY
from experiments.training import Trainer
from jaxconv import signal

OPERATIONS: dict[str, Callable[..., jax.Array]] = {"convolution": signal.convolve, "correlation": signal.correlate}
DTYPES = ("float64", "complex128", "float32")
SIDES = {1: 48, 2: 16, 3: 8}  # of a signal, by its number of dimensions
PHOTOGRAPHS = ("astronaut", "coins", "gravel")
UNITS = 100.0  # the most that rounding may do, in units of the machine's epsilon
DIFFERENT = 0.1  # the least relative difference where a law fails

LAYERS, STARTS, STEPS, LAYER_SIDE, TRAINING_SIDE = 3, 8, 200, 3, 32

METHOD = """\
Every law is an equation; its residual is the norm of the difference of both sides over the norm of the right one, \
in units of the machine’s epsilon where the law should hold. Signals x, y and kernels a, b, c are random in one, two \
and three dimensions, in float32, float64 and complex128, and cut out of photographs in one and two, whitened so that \
their low frequencies do not hide the flip. For the same reason a random kernel is redrawn until it differs from its \
own flip by at least half its norm, which few of five taps do not. Operations are those of jaxconv.signal in full \
mode, where correlation conjugates its second argument, as SciPy’s does.

Laws that single out convolution must fail for correlation, by a margin, in every case. What holds for correlation \
instead is claimed with the same tolerance: swapping the arguments flips and conjugates; filters applied one after \
another may still be exchanged, but compose as a convolution. For arguments that are all their own flips, \
correlation commutes: that control shows that the failure is the flip’s doing. The adjoint of either operation is \
the other, in valid mode; taking the operation itself must fail.

What follows for networks is shown by training: stacks of three linear 3×3 layers are fitted by Adam to what three \
other layers do to a whitened photograph. A stack of either convention equals one layer, whose kernel is the \
convolution of the three; their correlation is the wrong kernel."""


class Case(NamedTuple):
    """A signal, three kernels of one shape, and a signal of the shape of the result."""

    name: str
    epsilon: float
    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    y: np.ndarray


class Stack(NamedTuple):
    """Trained stacks: kernels [runs, layers, 3, 3], losses [steps, runs], and relative gaps [runs] of one layer.

    `convolved` has the convolution of the kernels, `correlated` their correlation.
    """

    kernels: np.ndarray
    losses: np.ndarray
    convolved: np.ndarray
    correlated: np.ndarray


def run(context: Context) -> Outcome:
    cases = list(draw(context, 2 if context.quick else 20))
    with context.progress(total=len(cases) + 4 * len(OPERATIONS), name="algebra") as bar:
        rows = []
        with jax.enable_x64(True):
            for case in cases:
                rows.append(
                    {
                        (name, law): value
                        for name, op in OPERATIONS.items()
                        for law, value in laws(name, op, case).items()
                    }
                )
                bar.update()
        residuals = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        stacks = {name: train(context, name, bar) for name in OPERATIONS}
    claims = judge(cases, residuals, stacks)
    return Outcome(
        answer=(
            "Convolution commutes, associates and has an identity on both sides; correlation does not. Layers of "
            "either compose by convolution, and each is the other’s adjoint."
        ),
        method=METHOD,
        claims=claims,
        figures=(composition(stacks),),
        tables=(table(cases, residuals),),
        highlights=(
            (f"{sum(values.size for values in residuals.values())}", f"equations, of {len(cases)} sets of signals"),
            (
                f"{max(claim.measured for claim in claims if claim.threshold == UNITS):.1f}",
                "largest residual, in epsilons",
            ),
        ),
    )


def draw(context: Context, repeats: int) -> Iterator[Case]:
    """Yield random signals of every rank and dtype, then pieces of photographs."""
    for dimensions, side in SIDES.items():
        # A quick run spends its time on compilation; it leaves out some dtypes, above all of arrays of high rank.
        for number, dtype in enumerate(DTYPES[: max(1, 3 - dimensions)] if context.quick else DTYPES):
            rng = context.rng(0, dimensions, number)
            for repeat in range(repeats):
                yield case(f"{dimensions}-D {dtype} {repeat + 1}", rng, dtype, normal(rng, dtype, (side,) * dimensions))
    for name in PHOTOGRAPHS:
        picture = data.photograph(name, SIDES[1] + 8)
        # Whitened, as low frequencies would hide the flip.
        picture = data.filtered(picture - picture.mean(), data.whitening_filter(picture - picture.mean(), 9))
        rng = context.rng(1)
        yield case(f"line of {name}", rng, "float64", picture[SIDES[1] // 2])
        yield case(name, rng, "float64", picture[: SIDES[2], : SIDES[2]])


def case(name: str, rng: np.random.Generator, dtype: str, x: np.ndarray) -> Case:
    a, b, c = (asymmetric(rng, dtype, (5,) * x.ndim) for _ in range(3))
    result = normal(rng, dtype, tuple(n + 4 for n in x.shape))
    return Case(name, float(np.finfo(dtype).eps), x, a, b, c, result)


def asymmetric(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw kernels until one is far enough from its own flip for the flip to matter."""
    while residual(turned(kernel := normal(rng, dtype, shape)), kernel) < ASYMMETRY:
        pass
    return kernel


def normal(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def turned(array: Any) -> np.ndarray:
    """Reverse every axis."""
    return np.flip(np.asarray(array))


def derivative(array: Any) -> np.ndarray:
    """Return the differences of neighbours along the first axis, zeros outside; one more than there are entries."""
    array = np.asarray(array)
    return np.diff(np.pad(array, [(1, 1)] + [(0, 0)] * (array.ndim - 1)), axis=0)


def shifted(array: Any) -> np.ndarray:
    """Move an array by two along every axis, within zeros."""
    return np.pad(np.asarray(array), [(2, 1)] * np.ndim(array))


def residual(left: Any, right: Any) -> float:
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        raise ValueError(f"sides of a law have the shapes {left.shape} and {right.shape}; they must agree")
    return float(np.linalg.norm(left - right) / np.linalg.norm(right))


def laws(name: str, op: Callable[..., jax.Array], case: Case) -> dict[str, float]:
    """Return the relative residual of every law, for one operation."""
    _, _, x, a, b, c, y = case
    one = np.zeros_like(a)
    one[(2,) * a.ndim] = 1  # in the middle, so that its place is that of its flip
    s = np.asarray(-0.7, x.dtype)
    other = signal.correlate if name == "convolution" else signal.convolve
    even_x, even_a = (np.real(array) + turned(np.real(array)) for array in (x, a))
    xa = op(x, a)

    def adjoint(candidate: Callable[..., jax.Array]) -> float:
        left, right = np.vdot(y, xa), np.vdot(candidate(y, a, mode="valid"), x)
        return float(np.abs(np.subtract(left, right)) / (np.linalg.norm(y) * np.linalg.norm(xa)))

    def pulled(candidate: Callable[..., jax.Array]) -> float:
        """Compare with the adjoint that differentiation gives: the transpose, conjugated."""
        (found,) = jax.linear_transpose(lambda v: op(v, a), jnp.asarray(x))(jnp.conj(y))
        return residual(candidate(y, a, mode="valid"), jnp.conj(found))

    scipy_op = scipy.signal.convolve if name == "convolution" else scipy.signal.correlate
    return {
        "as SciPy": residual(xa, scipy_op(x, a, method="direct")),
        "as SciPy, swapped": residual(op(a, x), scipy_op(a, x, method="direct")),
        "distributive": residual(op(x, b + c), np.asarray(op(x, b)) + op(x, c)),
        "scaling": residual(op(s * x, a), s * xa) + residual(op(x, s * a), s * xa),
        "shift": residual(op(shifted(x), a), shifted(xa)),
        "identity": residual(op(x, one), np.pad(x, 2)),
        "derivative of x": residual(op(derivative(x), a), derivative(xa)),
        "filters exchanged": residual(op(op(x, a), b), op(op(x, b), a)),
        "filters convolved": residual(op(op(x, a), b), op(x, signal.convolve(a, b))),
        "commutative": residual(op(a, x), xa),
        "associative": residual(op(x, op(a, b)), op(op(x, a), b)),
        "identity first": residual(op(one, x), np.pad(x, 2)),
        "derivative of a": residual(op(x, derivative(a)), derivative(xa)),
        "swapped, turned, conjugated": residual(turned(np.conj(op(a, x))), xa),
        "derivative of a, negated": residual(-np.asarray(op(x, derivative(a))), derivative(xa)),
        "commutative, even": residual(op(even_a, even_x), op(even_x, even_a)),
        "adjoint": max(adjoint(other), pulled(other)),
        "adjoint of the same convention": pulled(op),
    }


SHARED = (
    *("as SciPy", "as SciPy, swapped"),
    *("distributive", "scaling", "shift", "identity", "derivative of x"),
    *("filters exchanged", "filters convolved", "adjoint", "commutative, even"),
)
CONVOLUTION = ("commutative", "associative", "identity first", "derivative of a")
CORRELATION = ("swapped, turned, conjugated", "derivative of a, negated")
NEVER = ("adjoint of the same convention",)


def train(context: Context, convention: str, bar: tqdm) -> Stack:
    """Fit stacks of layers from several starts to what another stack of the same convention does."""
    operation = partial(OPERATIONS[convention], mode="valid")
    photograph = data.photograph("gravel", TRAINING_SIDE + 8)
    image = data.filtered(photograph - photograph.mean(), data.whitening_filter(photograph - photograph.mean(), 9))
    image = jnp.asarray(image / image.std(), context.dtype)
    one = np.zeros((LAYER_SIDE, LAYER_SIDE))
    one[LAYER_SIDE // 2, LAYER_SIDE // 2] = 1
    teachers, starts = one + 0.3 * context.rng(2).standard_normal((2, STARTS, LAYERS, LAYER_SIDE, LAYER_SIDE))

    def through(kernels: Any) -> jax.Array:
        return reduce(operation, kernels, image)

    def loss(kernels: jax.Array, target: jax.Array, _: None) -> jax.Array:
        return 0.5 * jnp.mean((through(kernels) - target) ** 2)

    targets = jax.jit(jax.vmap(through))(jnp.asarray(teachers, context.dtype))
    trainer = Trainer(loss, optax.adam(0.02), what=f"stacks of {convention} layers")
    fit = trainer.fit(jnp.asarray(starts, context.dtype), targets, steps=STEPS, chunks=4, tick=bar.update)
    kernels, outputs = np.asarray(fit.params, np.float64), np.asarray(jax.jit(jax.vmap(through))(fit.params))

    def gaps(compose: Callable[..., np.ndarray]) -> np.ndarray:
        one_layer = scipy.signal.convolve if convention == "convolution" else scipy.signal.correlate
        found = [one_layer(np.asarray(image, np.float64), reduce(compose, layers), mode="valid") for layers in kernels]
        return np.array([residual(single, stack) for single, stack in zip(found, outputs, strict=True)])

    return Stack(kernels, fit.losses, gaps(scipy.signal.convolve), gaps(scipy.signal.correlate))


def judge(
    cases: list[Case], residuals: dict[tuple[str, str], np.ndarray], stacks: dict[str, Stack]
) -> tuple[Claim, ...]:
    names, epsilons = [each.name for each in cases], np.array([each.epsilon for each in cases])
    starts = [f"start {index + 1}" for index in range(STARTS)]

    def claim(
        name: str, statement: str, conventions: tuple[str, ...], chosen: tuple[str, ...], *, hold: bool, control: bool
    ) -> Claim:
        values = np.stack([[residuals[convention, law] for law in chosen] for convention in conventions])
        return Claim.worst(
            name,
            f"{statement} ({'residual, in units of epsilon' if hold else 'relative difference'}).",
            values / epsilons if hold else values,
            (conventions, chosen, names),
            "<" if hold else ">",
            UNITS if hold else DIFFERENT,
            control=control,
        )

    both = tuple(OPERATIONS)
    bars = np.stack([stacks[name].losses[-1] / stacks[name].losses[0] for name in both])
    return (
        claim(
            "shared-laws",
            "Both are what SciPy computes; both are distributive, keep factors, shifts, the identity and the "
            "derivative of the signal, let filters be exchanged and compose by convolution, and "
            "each is the other’s adjoint",
            both,
            SHARED[:-1],
            hold=True,
            control=False,
        ),
        claim(
            "convolution-laws",
            "Convolution is commutative and associative, has an identity on both sides, and takes derivatives of the "
            "kernel",
            ("convolution",),
            CONVOLUTION,
            hold=True,
            control=False,
        ),
        claim(
            "correlation-breaks-them",
            "Correlation breaks each of these, in every case",
            ("correlation",),
            CONVOLUTION,
            hold=False,
            control=True,
        ),
        claim(
            "correlation-laws",
            "Swapping the arguments of a correlation turns and conjugates it, the derivative of its kernel negates",
            ("correlation",),
            CORRELATION,
            hold=True,
            control=False,
        ),
        claim(
            "even-signals",
            "For real signals that equal their flips, correlation commutes as well",
            both,
            SHARED[-1:],
            hold=True,
            control=True,
        ),
        claim(
            "not-its-own-adjoint",
            "No operation is its own adjoint",
            both,
            NEVER,
            hold=False,
            control=True,
        ),
        Claim.worst(
            "stacks-learn",
            "Trained stacks learn: the loss falls to less than a tenth, from every start (ratio).",
            bars,
            (both, starts),
            "<",
            0.1,
        ),
        Claim.worst(
            "stack-is-one-layer",
            "A trained stack of either convention is one layer whose kernel is the convolution of theirs (relative "
            "difference of outputs).",
            np.stack([stacks[name].convolved for name in both]),
            (both, starts),
            "<",
            1e-5,
        ),
        Claim.worst(
            "not-their-correlation",
            "It is not one layer whose kernel is their correlation (relative difference of outputs).",
            np.stack([stacks[name].correlated for name in both]),
            (both, starts),
            ">",
            DIFFERENT,
            control=True,
        ),
    )


def composition(stacks: dict[str, Stack]) -> Figure:
    panels = []
    for convention, stack in stacks.items():
        layers = stack.kernels[0]
        whole = reduce(scipy.signal.convolve, layers)
        wrong = reduce(scipy.signal.correlate, layers)
        pictures = [Picture(signed_png(k, np.abs(k).max()), f"layer {i + 1}") for i, k in enumerate(layers)]
        for kernel, label, gap in (
            (whole, "convolved", stack.convolved[0]),
            (wrong, "correlated", stack.correlated[0]),
        ):
            pictures.append(Picture(signed_png(kernel, np.abs(kernel).max()), label, f"off by {scientific(gap)}"))
        alt = f"{convention}: three learned 3 by 3 kernels, their convolution and their correlation, 7 by 7."
        panels.append(strip(convention, alt, pictures, title=f"Layers of {convention}", side=92))
    return Figure(
        "stacks",
        "A stack of linear layers is one layer",
        "The kernels of the first stack of each convention, each with a scale of its own. Beneath: how far the output "
        "of one layer with that kernel is from the output of the stack.",
        tuple(panels),
        width=510,
    )


def table(cases: list[Case], residuals: dict[tuple[str, str], np.ndarray]) -> Table:
    chosen = np.array([each.epsilon == np.finfo(np.float64).eps for each in cases])
    rows = [
        (law, *(scientific(residuals[name, law][chosen].max()) for name in OPERATIONS))
        for law in (*SHARED, *CONVOLUTION, *CORRELATION, *NEVER)
    ]
    return Table(
        "Which law belongs to which",
        "The largest relative residual in double precision, real or complex: 10⁻¹⁵ or so where a law holds, near 1 "
        "where it does not.",
        ("law", *OPERATIONS),
        tuple(rows),
    )
