"""Competing implementations of one operation: jaxconv, JAX, SciPy and torch.

Each is called as its users would call it, on arrays of its own kind that are made beforehand, in the layout that it
prefers. A library that is not installed is left out and named by `missing`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import jaxconv.lax
import jaxconv.signal
from experiments.speed.operations import DIRECTIONS, Direction, Layer, Operation, Signal, multiply_adds, operand_names

LIBRARIES = ("jaxconv", "jax", "scipy", "torch")
PEERS = LIBRARIES[1:]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to compute an operation in one direction.

    Attributes
    ----------
    library, name
        Who offers it, and what it is called there.
    fn
        Function of the operands.
    prepare
        Makes the operands from NumPy arrays.
    read
        Returns a result as a NumPy array in canonical form.
    traced
        Whether it is a JAX function, which is compiled before it is measured.
    multiply_adds
        Multiply-adds of its algorithm if that is the definition; 0 if it is a faster one or chooses for itself.
    """

    library: str
    name: str
    fn: Callable[[Any, Any], Any]
    prepare: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
    read: Callable[[Any], np.ndarray]
    traced: bool = False
    multiply_adds: int = 0


def missing() -> list[str]:
    """Return the peers that are not installed."""
    return [library for library in PEERS if importlib.util.find_spec(library) is None]


def ways(operation: Operation, direction: Direction) -> list[Way]:
    """Return jaxconv's way (as the planner chooses) and those of every installed peer."""
    found = [ours(operation, direction), *_jax(operation, direction)]
    absent = missing()
    if isinstance(operation, Signal) and "scipy" not in absent:
        from experiments.speed import peers_scipy

        found += peers_scipy.ways(operation, direction)
    if "torch" not in absent:
        from experiments.speed import peers_torch

        found += peers_torch.ways(operation, direction)
    return found


# --- functions of JAX arrays -----------------------------------------------------------------------------------------


def ours(operation: Operation, direction: Direction, method: str | None = None) -> Way:
    """Return jaxconv's way, by the planner's choice or by a named method."""
    chosen: Any = operation.method
    if method is not None:
        # The others of the triple are the user's choice, so that only the direction in question is forced.
        chosen = tuple(method if name == direction else chosen for name in DIRECTIONS)
    name = "jaxconv" if method is None else method
    return _traced("jaxconv", name, forward_by_ours(operation, chosen), operation, direction)


def forward_by_ours(operation: Operation, method: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return jaxconv's function of one model's operands, by a method or a triple of methods."""
    if isinstance(operation, Layer):
        return functools.partial(layer, jaxconv.lax.conv_general_dilated, operation, method=method)
    if operation.boundary == "fill":
        return _over_frames(functools.partial(jaxconv.signal.convolve, mode=operation.mode, method=method), operation)
    return functools.partial(jaxconv.signal.convolve2d, mode=operation.mode, boundary=operation.boundary, method=method)


def _jax(operation: Operation, direction: Direction) -> list[Way]:
    count = multiply_adds(operation)
    if isinstance(operation, Layer):
        forward = functools.partial(layer, lax.conv_general_dilated, operation)
        return [_traced("jax", "lax.conv_general_dilated", forward, operation, direction, count)]
    direct = functools.partial(jax.scipy.signal.convolve, mode=operation.mode, method="direct")
    transform = functools.partial(jax.scipy.signal.fftconvolve, mode=operation.mode)
    if operation.boundary != "fill":
        pads = operation.pads

        def padded(fn: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> jax.Array:
            return fn(jnp.pad(x, pads, mode="wrap"), w, mode="valid")

        direct, transform = (functools.partial(padded, fn) for fn in (direct, transform))
    found = [
        _traced("jax", "scipy.signal.convolve", _over_frames(direct, operation), operation, direction, count),
        _traced("jax", "scipy.signal.fftconvolve", _over_frames(transform, operation), operation, direction),
    ]
    if len(operation.in1) == 1 and operation.batch is None:
        convolve = functools.partial(jnp.convolve, mode=operation.mode)
        found.append(_traced("jax", "numpy.convolve", convolve, operation, direction, count))
    return found


def layer(
    convolve: Callable[..., jax.Array], operation: Layer, x: jax.Array, w: jax.Array, **options: Any
) -> jax.Array:
    """Apply a layer by a function with the signature of `jax.lax.conv_general_dilated`."""
    return convolve(
        x,
        w,
        operation.strides,
        operation.padding,
        operation.lhs_dilation,
        operation.rhs_dilation,
        operation.dimension_numbers,
        feature_group_count=operation.groups,
        **options,
    )


def _over_frames(fn: Callable[..., jax.Array], operation: Signal) -> Callable[..., jax.Array]:
    return fn if operation.batch is None else jax.vmap(fn, in_axes=(0, None))


def _traced(
    library: str,
    name: str,
    forward: Callable[[jax.Array, jax.Array], jax.Array],
    operation: Operation,
    direction: Direction,
    multiply_adds: int = 0,
) -> Way:
    fn = directed(forward, operation, direction)
    *_, result = operand_names(direction)

    def prepare(first: np.ndarray, second: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return jax.device_put(first), jax.device_put(second)

    def read(value: Any) -> np.ndarray:
        return operation.canonical(result, np.asarray(value))

    return Way(library, name, fn, prepare, read, traced=True, multiply_adds=multiply_adds)


def directed(
    forward: Callable[[jax.Array, jax.Array], jax.Array], operation: Operation, direction: Direction
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the function itself or one of its two gradients, vmapped over models.

    The gradient is a function of the result's gradient and of the other operand. The forward computation is no part of
    it, since a convolution is linear in each operand.
    """
    shapes = operation.shapes
    if operation.models is not None:
        shapes = {name: shape[1:] for name, shape in shapes.items()}

    def input_gradient(ct: jax.Array, w: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: forward(x, w), jax.ShapeDtypeStruct(shapes["x"], ct.dtype))(ct)[0]

    def kernel_gradient(x: jax.Array, ct: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda w: forward(x, w), jax.ShapeDtypeStruct(shapes["w"], ct.dtype))(ct)[0]

    fn = {"forward": forward, "input": input_gradient, "kernel": kernel_gradient}[direction]
    return fn if operation.models is None else jax.vmap(fn)
