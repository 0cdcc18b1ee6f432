"""What a step costs inside `jax.lax.scan`, where XLA on the CPU computes some convolutions in another, slower way."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax import lax

import jaxconv
from experiments.speed import peers, timing
from experiments.speed.operations import Layer, Operation, Signal
from experiments.speed.records import Loop
from jaxconv._algorithms import REGISTRY

STEPS = 8
RATE = 1e-3  # of the gradient descent

Step = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class LoopCase:
    """A step that maps a carry to one of the same shape.

    "forward" feeds the result to the next step; "training" is a step of gradient descent on the kernels of as many
    layers as `layers` says, one after the other.
    """

    name: str
    what: Literal["forward", "training"]
    operation: Operation
    layers: int = 1
    quick: bool = False


CASES = (
    LoopCase("loop-signal", "forward", Signal((100_000,), (64,), "same"), quick=True),
    LoopCase("loop-image", "forward", Signal((256, 256), (7, 7), "same")),
    LoopCase("loop-layer", "forward", Layer(8, (28, 28), 32, 32, (3, 3))),
    LoopCase("loop-sequence", "forward", Layer(8, (1024,), 64, 64, (3,), channels_last=False)),
    # jax-ml/jax#12868
    LoopCase("loop-pointwise", "forward", Layer(1, (1024,), 500, 500, (1,), channels_last=False)),
    LoopCase("loop-depthwise", "forward", Layer(8, (28, 28), 64, 64, (3, 3), groups=64)),
    LoopCase("loop-dilated", "forward", Layer(4, (32, 32), 16, 16, (3, 3), rhs_dilation=(2, 2))),
    LoopCase("loop-training-signal", "training", Signal((30_000,), (64,), "same")),
    LoopCase("loop-training-layers", "training", Layer(8, (28, 28), 32, 32, (3, 3)), layers=2, quick=True),
)


def measure(case: LoopCase, dtype: str, budget: float, algorithms: bool = True) -> Iterator[Loop]:
    """Measure a case by the planner's choice, beside `jax.lax`, and by each algorithm that can run it."""
    with jax.enable_x64(True):
        carry, constants = _operands(case, dtype)
        default: Any = case.operation.method
        theirs = _step(case, _jax_forward(case.operation))
        yield _loop(case, dtype, default, theirs, carry, constants, budget)
        for method in _methods(case, carry, constants) if algorithms else ():
            yield _loop(case, dtype, method, None, carry, constants, budget)


def _loop(
    case: LoopCase, dtype: str, method: Any, theirs: Step | None, carry: Any, constants: Any, budget: float
) -> Loop:
    steps = [_step(case, peers.forward_by_ours(case.operation, method)), *([theirs] if theirs else [])]
    calls = [call for step in steps for call in (_outside(step, carry, constants), _inside(step, carry, constants))]
    for call in calls:
        call()
    samples = timing.interleaved(calls, [0.0] * len(calls), budget)
    medians = [float(f"{np.median(times) / STEPS:.3g}") for times in samples]
    outside, inside, jax_outside, jax_inside = (*medians, None, None)[:4]
    name = method if isinstance(method, str) else method[2]
    return Loop(case.name, case.what, name, dtype, outside, inside, jax_outside, jax_inside)  # type: ignore[arg-type]


def _outside(step: Step, carry: Any, constants: tuple[jax.Array, ...]) -> Callable[[], Any]:
    compiled = jax.jit(step).lower(carry, *constants).compile()

    def call() -> None:
        value = carry
        for _ in range(STEPS):
            value = compiled(value, *constants)
        jax.block_until_ready(value)

    return call


def _inside(step: Step, carry: Any, constants: tuple[jax.Array, ...]) -> Callable[[], Any]:
    def run(value: Any, *constants: jax.Array) -> Any:
        return lax.scan(lambda value, _: (step(value, *constants), None), value, None, length=STEPS)[0]

    compiled = jax.jit(run).lower(carry, *constants).compile()
    return lambda: jax.block_until_ready(compiled(carry, *constants))


def _operands(case: LoopCase, dtype: str) -> tuple[Any, tuple[jax.Array, ...]]:
    """Return the first carry and what stays the same: the kernel, or input and target of the training."""
    rng = np.random.default_rng(0)
    shapes = case.operation.shapes
    x, target = (jax.numpy.asarray(rng.standard_normal(shapes["x"]).astype(dtype)) for _ in range(2))
    # Of norm 1, so that nothing grows from step to step.
    kernels = [rng.standard_normal(shapes["w"]) for _ in range(case.layers)]
    kernels = [jax.numpy.asarray((w / np.abs(w).sum()).astype(dtype)) for w in kernels]
    return (x, (kernels[0],)) if case.what == "forward" else (kernels, (x, target))


def _step(case: LoopCase, forward: Callable[[jax.Array, jax.Array], jax.Array]) -> Step:
    if case.what == "forward":
        return forward

    def loss(kernels: list[jax.Array], x: jax.Array, target: jax.Array) -> jax.Array:
        for w in kernels:
            x = forward(x, w)
        return jax.numpy.mean((x - target) ** 2)

    def train(kernels: list[jax.Array], x: jax.Array, target: jax.Array) -> list[jax.Array]:
        gradients = jax.grad(loss)(kernels, x, target)
        return [w - RATE * g for w, g in zip(kernels, gradients, strict=True)]

    return train


def _jax_forward(operation: Operation) -> Callable[[jax.Array, jax.Array], jax.Array]:
    if isinstance(operation, Layer):
        return functools.partial(peers.layer, lax.conv_general_dilated, operation)
    return functools.partial(jax.scipy.signal.convolve, mode=operation.mode)


def _methods(case: LoopCase, carry: Any, constants: tuple[jax.Array, ...]) -> list[Any]:
    """Return the algorithms that can run the forward step, or the kernel gradient of the training step."""
    base: Any = case.operation.method
    forward = peers.forward_by_ours(case.operation, base)
    if case.what == "forward":
        decision = jaxconv.plan(forward, carry, *constants)[0].forward
    else:
        decision = jaxconv.plan(forward, constants[0], carry[0])[0].kernel_gradient
    able = [candidate.name for candidate in decision.candidates if candidate.cost] if decision else []
    able = [name for name in able if base == "auto" or REGISTRY[name].local]
    return able if case.what == "forward" else [(base, base, name) for name in able]
