"""The primitive ``conv_p`` and its rules: the only module that touches JAX's extension interfaces.

In terms of contractions, with a the batch axis, b the input channels and c the output channels (the group axis and the
spatial axes are along for the ride)::

    forward           x[a, b]   w[c, b]  -> y[a, c]
    input gradient    ct[a, c]  w[c, b]  -> dx[a, b]    the other convention, kernel with c and b exchanged
    kernel gradient   x[a, b]   ct[a, c] -> dw[c, b]    correlation of x with a and b exchanged with ct likewise

so that the primitive is closed under differentiation. `vmap` over x, w or both folds the new axis into the batch, the
output channels or the groups, so that it is closed under batching too.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla
from jax.sharding import AxisType

from jaxconv._algorithms import AXES, REGISTRY
from jaxconv._algorithms._once import Call
from jaxconv._plan import Spread, assumed_spread, choose, spread_inside, with_choices_of
from jaxconv._simplify import simplify
from jaxconv._spec import (
    ConvSpec,
    Problem,
    groups_in_front,
    input_gradient_spec,
    is_static,
    kernel_gradient_spec,
    output_shape,
)
from jaxconv._tuning import in_force

conv_p = Primitive("jaxconv")


def bind(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """Bind the primitive on canonical operands of equal dtype.

    The specification takes along the measured winners that are in force, unless it holds some already: that of a
    gradient holds those of the convolution that is differentiated.

    Inside `jax.shard_map` both operands must vary over the same mesh axes: a kernel that is replicated is marked as
    varying first, since it is the transpose of that mark which sums its gradient over the devices.
    """
    x_varying, w_varying = (jax.typeof(a).manual_axis_type.varying for a in (x, w))
    if x_varying != w_varying:
        union = x_varying | w_varying
        if missing := union - x_varying:
            x = lax.pcast(x, tuple(sorted(missing)), to="varying")
        if missing := union - w_varying:
            w = lax.pcast(w, tuple(sorted(missing)), to="varying")
    if spec.tuning is None and (tuning := in_force()) is not None:
        spec = dataclasses.replace(spec, tuning=tuning)
    return conv_p.bind(x, w, spec=spec)


# --- abstract evaluation ---------------------------------------------------------------------------------------------


def _abstract_eval(x: Any, w: Any, *, spec: ConvSpec) -> Any:
    shape = (*x.shape[:2], w.shape[1], *output_shape(x.shape[3:], w.shape[3:], spec))
    sharding = x.sharding if x.sharding.mesh.empty and w.sharding.mesh.empty else _output_sharding(x, w, len(shape))
    # `update` keeps the set of mesh axes over which the value varies; a fresh ShapedArray would lose it, and gradients
    # of replicated operands would be wrong without any error.
    return x.update(shape=shape, dtype=spec.out_dtype, weak_type=False, sharding=sharding)


def _output_sharding(x: Any, w: Any, ndim: int) -> jax.sharding.NamedSharding:
    """Return y's sharding on a mesh with explicit axes: groups and batch as in x, output channels as in w.

    Sharded sums, which occur in the kernel gradient of a sharded batch, give replicated results.
    """
    (x_group, batch), (w_group, out) = x.sharding.spec[:2], w.sharding.spec[:2]
    mesh = _mesh(x, w)
    group = w_group if x_group is None else x_group
    used = {axis for entry in (group, batch) for axis in (entry if isinstance(entry, tuple) else (entry,))}
    out = None if used & set(out if isinstance(out, tuple) else (out,)) else out
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(group, batch, out, *(None,) * (ndim - 3)))


# --- evaluation ------------------------------------------------------------------------------------------------------


def _evaluate(x: jax.Array, w: jax.Array, *, spec: ConvSpec, platform: str, spread: Spread) -> jax.Array:
    """Compute the convolution by the algorithm that is best on the platform."""

    def run(x: jax.Array, w: jax.Array) -> jax.Array:
        return _compute(Problem.of(x.shape, w.shape, x.dtype, spec), x, w, platform, spread)

    x_aval, w_aval = jax.typeof(x), jax.typeof(w)
    explicit = _explicit_axes(x_aval, w_aval)
    if not explicit:
        return run(x, w)
    # What an algorithm does on the way is the compiler's to shard; only the result's sharding is given.
    out = _output_sharding(x_aval, w_aval, x.ndim)
    run_sharded: Any = jax.sharding.auto_axes(run, axes=explicit, out_sharding=out)
    return run_sharded(x, w)


def _mesh(x: Any, w: Any) -> Any:
    return w.sharding.mesh if x.sharding.mesh.empty else x.sharding.mesh


def _explicit_axes(x: Any, w: Any) -> tuple[Any, ...]:
    mesh = _mesh(x, w)
    return tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit)


def _compute(problem: Problem, x: jax.Array, w: jax.Array, platform: str, spread: Spread) -> jax.Array:
    if problem.empty:
        return jnp.zeros(problem.y_shape, problem.spec.out_dtype)
    if all(map(is_static, (*problem.input_shape, *problem.kernel_shape))):
        problem, parts = simplify(problem)
        if problem.empty:
            return jnp.zeros(problem.y_shape, problem.spec.out_dtype)
        x, w = _part(x, parts.x), _part(w, parts.w)
    algorithm = choose(problem, platform, spread) if problem.static else REGISTRY["xla"]
    if algorithm.by_platform:
        return algorithm.run(problem, x, w, Call(platform))
    if algorithm.inner is None:
        return algorithm.run(problem, x, w)

    def inside(inner: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
        return _compute(with_choices_of(problem, inner), x, w, platform, spread_inside(algorithm, spread))

    return algorithm.run(problem, x, w, inside)


def _part(operand: jax.Array, slices: tuple[slice, ...]) -> jax.Array:
    """Slice the spatial axes of a canonical array, if there is anything to leave out."""
    lengths = operand.shape[3:]
    whole = all(part.indices(length) == (0, length, 1) for part, length in zip(slices, lengths, strict=True))
    return operand if whole else operand[(..., *slices)]


def _lower(ctx: Any, x: Any, w: Any, *, spec: ConvSpec, platform: str) -> Any:
    evaluate = functools.partial(_evaluate, platform=platform, spread=_spread(ctx))
    return mlir.lower_fun(evaluate, multiple_results=False)(ctx, x, w, spec=spec)


def _spread(ctx: Any) -> Spread:
    """Return how XLA may shard the operands of a convolution that is being lowered.

    Over mesh axes that are explicit, as their types say; over all other devices as `assumed_spread` says, since nothing
    is known before XLA decides; not over the manual axes of `jax.shard_map`, inside of which each device's share is
    lowered.
    """
    x, w = ctx.avals_in
    context = ctx.module_context.axis_context
    if isinstance(context, mlir.ShardingContext):
        devices = context.num_devices
    elif isinstance(context, mlir.SPMDAxisContext):
        sizes = context.mesh.shape.items()
        devices = math.prod(size for name, size in sizes if name not in context.manual_axes)
    else:
        devices = 1
    mesh = _mesh(x, w)
    explicit = _explicit_axes(x, w)
    spread = assumed_spread(devices // math.prod(mesh.shape[name] for name in explicit))
    if explicit:
        counts: dict[str, int] = dict.fromkeys(AXES, 1) | dict(spread)
        x_entries = zip(("groups", "batch", "in_channels"), x.sharding.spec, strict=False)
        w_entries = zip(("groups", "out_channels", "in_channels"), w.sharding.spec, strict=False)
        entries = {axis: entry for axis, entry in (*x_entries, *w_entries) if entry is not None}
        for axis, entry in entries.items():
            counts[axis] *= math.prod(mesh.shape[name] for name in (entry if isinstance(entry, tuple) else (entry,)))
        spread = tuple((axis, count) for axis, count in counts.items() if count > 1)
    return spread


# --- differentiation -------------------------------------------------------------------------------------------------


def _exchange(operand: jax.Array) -> jax.Array:
    """Exchange the two channel-like axes of a canonical array."""
    return jnp.swapaxes(operand, 1, 2)


def _transpose_x(ct: jax.Array, x: Any, w: jax.Array, *, spec: ConvSpec) -> jax.Array:
    # [a, c] [c, b] -> [a, b]
    primal = x.aval
    adjoint = input_gradient_spec(primal.shape[3:], w.shape[3:], spec)
    return bind(ct, _exchange(w.astype(ct.dtype)), adjoint).astype(primal.dtype)


def _transpose_w(ct: jax.Array, x: jax.Array, w: Any, *, spec: ConvSpec) -> jax.Array:
    # [b, a] [c, a] -> [b, c], exchanged
    primal = w.aval
    adjoint = kernel_gradient_spec(x.shape[3:], primal.shape[3:], spec)
    gradient = _exchange(bind(_exchange(x.astype(ct.dtype)), _exchange(ct), adjoint))
    if spec.convention == "convolution":
        gradient = lax.rev(gradient, tuple(range(3, gradient.ndim)))
    return gradient.astype(primal.dtype)


# --- batching --------------------------------------------------------------------------------------------------------


def _fold(operand: jax.Array, source: int, axis: int, behind: bool) -> tuple[jax.Array, tuple[int, int]]:
    """Merge the batch axis at ``source`` into ``axis`` of the canonical array, in front of what is there or behind.

    Also returns the lengths of the two, in their order.
    """
    operand = jnp.moveaxis(operand, source, axis + behind)
    shape = operand.shape
    pair = shape[axis], shape[axis + 1]
    return operand.reshape(*shape[:axis], pair[0] * pair[1], *shape[axis + 2 :]), pair


def _must_lead(operand: jax.Array, source: int, axis: int) -> bool:
    """Whether ``axis`` of the canonical array is sharded and the batch axis at ``source`` is not.

    Of axes that are merged only the first may be sharded over an explicit axis of a mesh, unless all are.
    """
    spec = list(jax.typeof(operand).sharding.spec)
    return spec.pop(source) is None and spec[axis] is not None


def _batch(operands: Any, axes: Any, *, spec: ConvSpec) -> tuple[jax.Array, int]:
    (x, w), (x_axis, w_axis) = operands, axes
    if w_axis is None:
        axis, behind = 1, _must_lead(x, x_axis, 1)
        x, pair = _fold(x, x_axis, 1, behind)
    elif x_axis is None:
        axis, behind = 2, _must_lead(w, w_axis, 1)
        w, pair = _fold(w, w_axis, 1, behind)
    else:
        axis, behind = 0, _must_lead(x, x_axis, 0) or _must_lead(w, w_axis, 0)
        x, pair = _fold(x, x_axis, 0, behind)
        w, _ = _fold(w, w_axis, 0, behind)
        if pair[1 - behind] == 1:
            spec = dataclasses.replace(spec, held=groups_in_front(spec.orders))
    y = bind(x, w, spec)
    return y.reshape(*y.shape[:axis], *pair, *y.shape[axis + 1 :]), axis + behind


# --- registration ----------------------------------------------------------------------------------------------------


conv_p.def_impl(functools.partial(xla.apply_primitive, conv_p))
conv_p.def_abstract_eval(_abstract_eval)
ad.defbilinear(conv_p, _transpose_x, _transpose_w)
batching.primitive_batchers[conv_p] = _batch
for _platform in (None, "cuda", "rocm", "tpu"):
    mlir.register_lowering(
        conv_p,
        functools.partial(_lower, platform=_platform or "cpu"),
        platform=_platform,
    )
