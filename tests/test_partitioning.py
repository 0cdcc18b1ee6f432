"""Automatic sharding: what moves between devices, and that the planner avoids it, but only there."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxconv
from jaxconv import _autotune
from jaxconv._algorithms import AXES, REGISTRY
from jaxconv._ops import conv
from jaxconv._plan import HEAVY_ADVANTAGE, assumed_spread, decide
from jaxconv._simplify import simplify
from jaxconv._tuning import Measurement, Tuning

from .cases import Case, operands, random
from .methods import parameters, problem
from .test_shard_map import LAYOUTS
from .tolerances import check

# One device takes an FFT for all three, and the others are not ten times slower.
LONG = Case("long", (4000,), (1000,), n=4)
# One device takes phases, and XLA's own dilated convolution is not ten times slower.
DILATED = Case("dilated", (40, 36), (3, 3), padding=4, rhs_dilation=4, n=2, c=4, o=4)
# Every algorithm, on the first of these that it can run.
CASES = (
    Case("image", (6, 5), (3, 2), padding=1, g=2, n=4),
    Case("pointwise", (6, 5), (1, 1), n=4, c=16, o=2),
    Case("dense", (6, 5), (2, 2), n=4, c=16, o=2),
    Case("signal", (72,), (5,), padding=((0, 2),), n=4),
    Case("few-outputs", (16,), (13,), padding=1, n=4, c=2, o=2),
    Case("transposed", (5, 4), (3, 2), padding=2, lhs_dilation=(2, 1), n=4, c=2, o=1),
    Case("volume", (4, 4, 3), (2, 2, 3), n=4, c=2, o=2),
)
# Signals and images that are transformed along one axis and along several.
TRANSFORMED = (
    Case("one-signal", (60,), (40,)),
    Case("signals", (40,), (30,), padding=3, g=2, n=4, c=2, o=2),
    Case("one-image", (10, 12), (5, 6)),
    Case("columns", (8, 6), (5, 1), n=2, c=2, o=3),
    Case("volume", (5, 4, 6), (2, 3, 2), padding=1, g=2, n=2),
)
MOVES = ("all-gather", "all-to-all", "collective-permute")
ROLES = ("forward", "input gradient", "kernel gradient")


@pytest.fixture
def mesh(two_devices):
    return Mesh(np.array(two_devices), ("i",))


def lowered(case, mesh, role, method="auto", wrap=lambda function: function, specs=LAYOUTS["batch"]):
    """One of the three computations, lowered for operands that are sharded over a mesh."""
    function = wrap(functools.partial(conv, **case.options, convention="convolution", method=method))
    x, w, ct = (
        jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, spec))
        for shape, spec in zip((case.x_shape, case.w_shape, case.y_shape), specs, strict=True)
    )
    if role == "forward":
        return jax.jit(function).lower(x, w)
    if role == "input gradient":
        return jax.jit(lambda w, ct: jax.vjp(lambda x: function(x, w), jax.numpy.zeros(x.shape, x.dtype))[1](ct)).lower(
            w, ct
        )
    return jax.jit(lambda x, ct: jax.vjp(lambda w: function(x, w), jax.numpy.zeros(w.shape, w.dtype))[1](ct)).lower(
        x, ct
    )


def moves(program) -> set[str]:
    """Which collective operations move data that are no sums in a compiled program."""
    text = program.compile().as_text()
    return {name for name in MOVES if re.search(rf" {name}(-start)?\(", text)}


def of_role(case, role, method="auto"):
    whole = problem(case, "float32", "convolution", method)
    return {
        "forward": lambda: whole,
        "input gradient": whole.input_gradient,
        "kernel gradient": whole.kernel_gradient,
    }[role]()


@pytest.mark.parametrize(("case", "dtype", "name"), parameters(CASES, ("float32",), limit=1))
def test_what_algorithms_say_of_themselves(mesh, case, dtype, name):
    """What does not say that it gathers moves nothing, under a sharded batch; FFTs that say so do."""
    compiled = 0
    for number, role in enumerate(ROLES):
        simple, _ = simplify(of_role(case, role, name))
        candidates = {c.name: c for c in decide(simple, "cpu", tuple((axis, 2) for axis in AXES)).candidates}
        gathers = candidates[name].gathers
        if candidates[name].cost is None or (gathers and not REGISTRY[name].uses_fft):
            continue
        method = ["xla"] * 3
        method[number] = name
        moved = moves(lowered(case, mesh, role, tuple(method)))
        assert bool(moved) == bool(gathers), (role, moved)
        compiled += 1
    assert compiled > 0


@pytest.mark.parametrize("case", [LONG, DILATED], ids=str)
@pytest.mark.parametrize("role", ROLES)
def test_auto_does_not_gather(mesh, case, role):
    """A batch that is sharded under plain `jit`: the choice of one device would move it, that of two does not."""
    assert not moves(lowered(case, mesh, role))
    simple, _ = simplify(of_role(case, role))
    alone, together = (decide(simple, "cpu", assumed_spread(devices)) for devices in (1, 2))
    assert not {c.name: c for c in together.candidates}[together.chosen].gathers
    if case is LONG:
        assert REGISTRY[alone.chosen].uses_fft
        method = ["xla"] * 3
        method[ROLES.index(role)] = alone.chosen
        fft = {c.name: c for c in together.candidates}["fft"]
        assert bool(moves(lowered(case, mesh, role, tuple(method)))) == bool(fft.gathers)
        if role == "kernel gradient":
            assert fft.reason == "would gather what may be sharded over in_channels, without being 10 times faster"


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["input", "kernel", "both"])
@pytest.mark.parametrize(
    ("case", "method"), [*((case, "fft") for case in TRANSFORMED), (Case("stretches", (90,), (5,), c=2), "overlap")]
)
def test_transforms_under_a_sharded_vmap(mesh, case, method, axes):
    """XLA on CPU refuses an FFT of what it has laid out otherwise than row by row, as it does with gathered arrays."""
    x, w = operands(case, "float64")
    if axes[0] == 0:
        x = random((4, *case.x_shape), "float64", "x")
    if axes[1] == 0:
        w = random((4, *case.w_shape), "float64", "w")
    ct = random((4, *case.y_shape), "float64", "ct")
    function = jax.vmap(functools.partial(conv, **case.options, convention="convolution", method=method), axes)
    sharded_x, sharded_w, sharded_ct = (
        jax.device_put(array, NamedSharding(mesh, PartitionSpec(*["i"] * (axis == 0))))
        for array, axis in ((x, axes[0]), (w, axes[1]), (ct, 0))
    )
    y = jax.jit(function)(sharded_x, sharded_w)
    (dx,) = jax.jit(lambda w, ct: jax.vjp(lambda x: function(x, w), np.zeros(x.shape))[1](ct))(sharded_w, sharded_ct)
    (dw,) = jax.jit(lambda x, ct: jax.vjp(lambda w: function(x, w), np.zeros(w.shape))[1](ct))(sharded_x, sharded_ct)
    inputs, kernels = (list(array) if axis == 0 else [array] * 4 for array, axis in zip((x, w), axes, strict=True))
    for item in range(4):
        check("value", y[item], inputs[item], kernels[item], case, "convolution", "float64", fft=True)
        if axes[0] == 0:
            check("input", dx[item], ct[item], kernels[item], case, "convolution", "float64", fft=True)
        if axes[1] == 0:
            check("kernel", dw[item], ct[item], inputs[item], case, "convolution", "float64", fft=True)
    # What is shared has the sum of the gradients, as over four times as many outputs or inputs.
    if axes[0] is None:
        stacked = np.concatenate(ct, 2), np.concatenate(w, 1)
        check("input", dx, *stacked, case, "convolution", "float64", fft=True)
    if axes[1] is None:
        stacked = np.concatenate(ct, 1), np.concatenate(x, 1)
        check("kernel", dw, *stacked, case, "convolution", "float64", fft=True)


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map_nothing_is_avoided(mesh, check_vma):
    """There each device has its share, and gathers nothing."""
    x, w, y = LAYOUTS["batch"]
    wrap = functools.partial(jax.shard_map, mesh=mesh, in_specs=(x, w), out_specs=y, check_vma=check_vma)
    for role in ROLES:
        program = lowered(LONG, mesh, role, wrap=wrap)
        assert "stablehlo.fft" in program.as_text()
        assert not moves(program)


def test_partly_manual(two_devices):
    """Axes of the mesh that `shard_map` leaves to XLA count, those that it takes do not."""
    for manual, automatic in ((2, 1), (1, 2)):
        mesh = Mesh(np.array(two_devices).reshape(manual, automatic), ("i", "j"))
        x, w, y = LAYOUTS["batch"]
        wrap = functools.partial(jax.shard_map, mesh=mesh, in_specs=(x, w), out_specs=y, axis_names={"i"})
        text = lowered(LONG, mesh, "kernel gradient", wrap=wrap).as_text()
        assert ("stablehlo.fft" in text) == (automatic == 1)


def test_explicit_sharding_is_known(two_devices):
    """Only what the types say is sharded counts: replicated operands may be transformed."""
    mesh = Mesh(np.array(two_devices), ("i",), axis_types=(AxisType.Explicit,))
    for specs, avoided in ((LAYOUTS["batch"], True), ((PartitionSpec(),) * 3, False)):
        with jax.set_mesh(mesh):
            program = lowered(LONG, mesh, "kernel gradient", specs=specs)
        assert ("stablehlo.fft" not in program.as_text()) == avoided
        assert not moves(program)


def test_axes_that_cannot_be_sharded():
    """An axis is sharded evenly, so that three samples are not over two devices."""
    for batch, avoided in ((1, False), (3, False), (4, True)):
        simple, _ = simplify(of_role(dataclasses.replace(LONG, n=batch), "kernel gradient"))
        (fft,) = (c for c in decide(simple, "cpu", assumed_spread(2)).candidates if c.name == "fft")
        assert bool(fft.gathers) == avoided


def test_gathering_is_better_than_hopeless():
    """A choice that computes everything on every device is taken where the others are slower by far."""
    huge = Case("huge", (1_000_000,), (100_000,), n=4)
    simple, _ = simplify(of_role(huge, "kernel gradient"))
    decision = decide(simple, "cpu", assumed_spread(8))
    by_name = {c.name: c for c in decision.candidates}
    assert by_name[decision.chosen].gathers
    others = [c.seconds for c in by_name.values() if c.seconds is not None and not c.gathers]
    assert min(others) > 8 * HEAVY_ADVANTAGE * by_name[decision.chosen].seconds


def test_winners_of_one_device_do_not_gather(mesh):
    """What was measured on one device counts under automatic sharding unless it gathers."""
    setting = _autotune.setting_of(jax.devices()[0])
    simple, _ = simplify(of_role(LONG, "kernel gradient"))
    for chosen, source in (("fft", "modelled"), ("xla", "measured")):
        with jaxconv.tuned(Tuning([Measurement(setting, simple, chosen, ())])):
            (plan,) = jaxconv.plan(
                functools.partial(conv, **LONG.options, convention="convolution"),
                *(jax.ShapeDtypeStruct(shape, "float32") for shape in (LONG.x_shape, LONG.w_shape)),
                platform="cpu",
                devices=2,
            )
            assert plan.kernel_gradient.source == source
            assert not moves(lowered(LONG, mesh, "kernel gradient"))


def test_plan_of_devices():
    """Printed as it would be lowered; a number that is none is refused."""
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in (LONG.x_shape, LONG.w_shape))
    (alone,), (together,) = (jaxconv.plan(conv, x, w, platform="cpu", devices=devices) for devices in (1, 2))
    assert REGISTRY[alone.kernel_gradient.chosen].uses_fft
    assert not REGISTRY[together.kernel_gradient.chosen].uses_fft
    assert "would gather what may be sharded over in_channels, without being 10 times faster" in repr(together)
    with pytest.raises(ValueError, match=r"devices must be at least 1, got 0"):
        jaxconv.plan(conv, x, w, devices=0)
