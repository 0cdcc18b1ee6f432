"""The planner: what it chooses where that is clear, what it counts, what it promises, and how it is printed."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv
from jaxconv._algorithms import REGISTRY
from jaxconv._cost import seconds
from jaxconv._ops import conv
from jaxconv._plan import choose, decide
from jaxconv._simplify import simplify
from jaxconv._spec import ConvSpec, Problem
from jaxconv._text import duration

from .cases import CASES, CONVENTIONS, Case
from .methods import problem

FFTS = {name for name, algorithm in REGISTRY.items() if algorithm.uses_fft}
SIGNAL, IMAGE = (1_000_000,), (512, 512)


def shapes(case: Case, dtype: str = "float32"):
    return jax.ShapeDtypeStruct(case.x_shape, dtype), jax.ShapeDtypeStruct(case.w_shape, dtype)


def plan_of(case: Case, dtype: str = "float32", **options):
    (plan,) = jaxconv.plan(functools.partial(conv, **case.options, **options), *shapes(case, dtype), platform="cpu")
    return plan


def chosen(plan) -> tuple[str, str, str]:
    return plan.forward.chosen, plan.input_gradient.chosen, plan.kernel_gradient.chosen


@pytest.mark.parametrize(
    ("signal", "kernel", "expected"),
    [
        (SIGNAL, (5,), {"shift"}),
        (IMAGE, (3, 3), {"shift"}),
        (IMAGE, (255, 255), {"fft"}),
        ((100_000,), (50_000,), {"fft"}),
        (SIGNAL, (16_384,), FFTS),
    ],
)
def test_clear_choices(signal, kernel, expected):
    """Cases in which every measurement agrees by a wide margin."""
    (plan,) = jaxconv.plan(signal, kernel, mode="same", platform="cpu")
    assert plan.forward.chosen in expected


def test_layers_of_many_channels_are_left_to_xla():
    case = Case("dense", (28, 28), (3, 3), padding=1, n=8, c=128, o=128)
    # The kernel gradient is a tie of xla and matmul.
    assert chosen(plan_of(case))[:2] == ("xla", "xla")


def test_depthwise_layers_are_not():
    case = Case("depthwise", (56, 56), (3, 3), padding=1, n=8, g=64)
    assert plan_of(case, channels_last=True).forward.chosen == "shift"


def test_kernel_gradient_of_a_long_signal():
    """Few outputs, a million taps: planned in its own shape, not inherited from the forward computation."""
    (plan,) = jaxconv.plan(SIGNAL, (64,), mode="valid", platform="cpu")
    assert plan.kernel_gradient.problem.kernel_shape == (999_937,)
    assert plan.kernel_gradient.problem.output_shape == (64,)
    assert plan.kernel_gradient.chosen != "xla"


@pytest.mark.parametrize(("signal", "kernel"), [(SIGNAL, (16_384,)), (IMAGE, (255, 255))])
def test_direct_rules_out_transforms(signal, kernel):
    (plan,) = jaxconv.plan(signal, kernel, method="direct", platform="cpu")
    assert not set(chosen(plan)) & FFTS
    for decision in (plan.forward, plan.input_gradient, plan.kernel_gradient):
        for candidate in decision.candidates:
            if candidate.name in FFTS:
                assert candidate.reason


def test_integers_are_never_transformed():
    (plan,) = jaxconv.plan(SIGNAL, (16_384,), dtype="int32", platform="cpu")
    assert plan.forward.chosen not in FFTS
    assert plan.input_gradient is plan.kernel_gradient is None
    by_name = {candidate.name: candidate for candidate in plan.forward.candidates}
    assert all(by_name[name].cost is None and "int32" in by_name[name].reason for name in FFTS)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_multiply_adds_of_signals(mode):
    (plan,) = jaxconv.plan((100,), (7,), mode=mode)
    assert plan.problem.multiply_adds == {"full": 106, "same": 100, "valid": 94}[mode] * 7


@pytest.mark.parametrize(
    ("case", "count"),
    [
        # groups x batch x out channels x outputs x in channels x taps
        (Case("dense", (28, 28), (3, 3), padding=1, n=8, c=16, o=32), 8 * 32 * 28 * 28 * 16 * 9),
        (Case("grouped", (10,), (4,), g=3, n=2, c=5, o=7), 3 * 2 * 7 * 7 * 5 * 4),
        (Case("strided", (11, 12), (3, 2), (2, 3)), 5 * 4 * 6),
        (Case("dilated", (8,), (3,), lhs_dilation=2, rhs_dilation=3), 9 * 3),
        (Case("point", (), (), g=2, n=3, c=4, o=5), 2 * 3 * 4 * 5),
        (Case("empty", (3,), (5,)), 0),
    ],
    ids=str,
)
def test_multiply_adds_of_layers(case, count):
    planned = plan_of(case).problem
    assert planned.multiply_adds == count
    # The kernel gradient sums the same products; the input gradient has as many taps for each of its own outputs.
    assert planned.kernel_gradient().multiply_adds == count
    expected = math.prod(case.x_shape) * case.o * math.prod(case.taps)
    assert planned.input_gradient().multiply_adds == expected


@pytest.mark.parametrize("method", ["xla", "fft"])
def test_stated_error_includes_the_rounding_of_half_precision(method):
    """Sums are formed in float32, and rounded once more than those that stay there."""

    def stated(dtype):
        (plan,) = jaxconv.plan((100,), (7,), dtype=dtype, platform="cpu")
        return next(candidate.cost.error for candidate in plan.forward.candidates if candidate.name == method)

    for dtype in ("bfloat16", "float16"):
        assert stated(dtype) == pytest.approx(stated("float32") + float(jnp.finfo(dtype).eps) / 2)
    assert stated("int32") == 0 if method == "xla" else stated("float64") < 1e-13


def test_costs_of_the_definition():
    """What the algorithms count for (100,) with 7 taps, 'full': 106 x 7 products; an FFT far fewer, and transforms."""
    (plan,) = jaxconv.plan((100,), (7,), platform="cpu")
    costs = {candidate.name: candidate.cost for candidate in plan.forward.candidates}
    eps = float(np.finfo("float32").eps)
    for name in ("xla", "shift"):
        assert costs[name].multiply_adds == 742
        assert costs[name].transform_flops == 0
        assert costs[name].error == pytest.approx(8 * eps)
    # 106 outputs need 106 points or more: 108 = 2^2 3^3 is fast. Three real transforms, one complex product a bin.
    assert costs["fft"].multiply_adds == 4 * 55
    assert costs["fft"].transform_flops == pytest.approx(3 * 2.5 * 108 * math.log2(108))
    assert costs["fft"].scratch == 4 * 3 * 108
    # A single row of float32 leaves 15 of 16 places idle, and of 108 x 108 samples no axis leaves any.
    assert costs["fft"].terms["transform idle"] == pytest.approx(15 * costs["fft"].transform_flops)
    (plan,) = jaxconv.plan((100, 100), (7, 7), platform="cpu")
    (fft,) = (candidate.cost for candidate in plan.forward.candidates if candidate.name == "fft")
    assert fft.transform_flops == pytest.approx(3 * 2.5 * 108**2 * math.log2(108**2))
    assert fft.terms["transform idle"] == 0


@pytest.mark.parametrize("case", [case for case in CASES if not case.vanishes], ids=str)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_every_decision_is_complete(case, platform):
    """Every algorithm is weighed, the cheapest admissible one wins, and each loser is told why."""
    for convention in CONVENTIONS:
        whole = problem(case, "float32", convention)
        for target in (whole, whole.input_gradient(), whole.kernel_gradient()):
            simple, _ = simplify(target)
            decision = decide(simple, platform)
            assert decision == decide(simple, platform)
            assert [candidate.name for candidate in decision.candidates] == list(REGISTRY)
            assert choose(simple, platform).name == decision.chosen
            for candidate in decision.candidates:
                supported = REGISTRY[candidate.name].supports(simple) is None
                assert (candidate.cost is not None) == (candidate.seconds is not None) == supported
                assert bool(candidate.reason) == (candidate.name != decision.chosen)
                if supported:
                    assert candidate.seconds > 0
                    assert candidate.cost.error > 0
                    assert candidate.cost.work > 0
                    assert candidate.cost.bytes_moved > 0


@pytest.mark.parametrize("name", REGISTRY)
def test_named_method_is_taken_at_its_word(name):
    (plan,) = jaxconv.plan((70_000,), (9_000,), method="xla", platform="cpu")
    assert set(chosen(plan)) == {"xla"}
    case = next(
        c for c in CASES if not c.vanishes and REGISTRY[name].supports(simplify(problem(c, "float64"))[0]) is None
    )
    plan = plan_of(case, "float64", method=name)
    assert plan.forward.chosen == name
    assert all(c.name == name or c.reason for c in plan.forward.candidates)


def test_triple_is_taken_at_its_word():
    (plan,) = jaxconv.plan((70, 80), (5, 4), method=("fft", "shift", "xla"), platform="cpu")
    assert chosen(plan) == ("fft", "shift", "xla")


@pytest.mark.parametrize(("kernel", "method"), [((5,), "auto"), ((50_000,), "auto"), ((500,), "direct")])
def test_program_is_as_planned(kernel, method):
    """What is lowered is what the plan says, forward and both gradients."""
    function = functools.partial(jaxconv.signal.convolve, method=method)
    x, w = jax.ShapeDtypeStruct((100_000,), "float32"), jax.ShapeDtypeStruct(kernel, "float32")
    (plan,) = jaxconv.plan(function, x, w)

    def transforms(function, *arguments):
        return "stablehlo.fft" in jax.jit(function).lower(*arguments).as_text()

    assert transforms(function, x, w) == (plan.forward.chosen in FFTS)
    y = jax.eval_shape(function, x, w)
    for argument, decision in ((0, plan.input_gradient), (1, plan.kernel_gradient)):

        def pull(ct, other, argument=argument):
            swap = (lambda a: function(a, other)) if argument == 0 else (lambda a: function(other, a))
            return jax.linear_transpose(swap, (x, w)[argument])(ct)

        assert transforms(pull, y, (w, x)[argument]) == (decision.chosen in FFTS)


def test_plan_of_a_function():
    """Every convolution of a program in its order, inside `jit`, `scan` and `vmap`, and those of a gradient."""
    x, w = jnp.ones((1, 2, 3, 10)), jnp.ones((1, 3, 3, 3))

    def step(x, w):
        return conv(x, w, padding=((1, 1),), convention="convolution")

    def loop(x, w):
        x = jax.jit(step)(x, w)
        return jax.lax.scan(lambda x, _: (step(x, w), None), x, None, length=4)[0].sum()

    report = jaxconv.plan(loop, x, w)
    assert [plan.problem.batch for plan in report] == [2, 2]
    assert [plan.problem.spec.convention for plan in report] == ["convolution"] * 2

    (batched,) = jaxconv.plan(jax.vmap(step, (0, None)), jnp.ones((5, *x.shape)), w)
    assert batched.problem.x_shape == (1, 10, 3, 10)
    (models,) = jaxconv.plan(jax.vmap(step), jnp.ones((5, *x.shape)), jnp.ones((5, *w.shape)))
    assert models.problem.groups == 5

    gradient = jaxconv.plan(jax.grad(lambda x, w: (step(x, w) ** 2).sum(), (0, 1)), x, w)
    assert gradient[0].problem == jaxconv.plan(step, x, w)[0].problem
    assert {plan.problem.output_shape for plan in gradient} == {(10,), (3,)}
    assert sorted(plan.problem.spec.convention for plan in gradient) == ["convolution", "correlation", "correlation"]


def test_nothing_is_computed():
    (plan,) = jaxconv.plan((10**12,), (10**3,), platform="cpu")
    assert plan.problem.output_shape == (10**12 + 999,)


def test_plans_without_arithmetic():
    plan = plan_of(Case("empty", (3,), (5,)))
    assert plan.forward is None
    assert repr(plan)
    assert repr(jaxconv.plan(lambda x: x + 1, jnp.ones(3))) == "no convolution of jaxconv found"
    assert len(jaxconv.plan(lambda x: x + 1, jnp.ones(3))) == 0


def test_report():
    """The printed report: what was asked, each direction's choice, and a row with numbers or a reason for each."""
    report = jaxconv.plan((1_000_000,), (64,), mode="same", dtype="float32", platform="cpu")
    text = repr(report)
    assert text == str(report) == repr(jaxconv.plan((1_000_000,), (64,), mode="same", platform="cpu"))
    head, *_ = text.splitlines()
    assert "convolution" in head
    assert "float32" in head
    assert "1000000" in head
    assert "6.40e+07 multiply-adds" in text
    for role in ("forward", "input gradient", "kernel gradient"):
        assert len(re.findall(rf"^ *{role} on cpu: \w+ \(modelled\)$", text, re.MULTILINE)) == 1
    for name in REGISTRY:
        assert len(re.findall(rf"^ +(\* )?{name} ", text, re.MULTILINE)) == 3
    assert len(re.findall(r"^ +\* \w+ ", text, re.MULTILINE)) == 3
    assert "times slower" in text
    assert not re.search(r" $", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "pattern"),
    [
        (((100,),), {}, TypeError, r"two shapes"),
        (((100,), (5,), (5,)), {}, TypeError, r"two shapes"),
        (((100,), (5,)), {"platform": "abacus"}, ValueError, r"'abacus'.*'cpu', 'cuda'"),
        (((100,), (5,)), {"mode": "some"}, ValueError, r"'some'.*'full', 'same', 'valid'"),
        (((100,), (5,)), {"method": "quick"}, ValueError, r"'quick'.*'auto', 'direct'"),
        (((100, 100), (5,)), {}, ValueError, r"2.*1|dimension"),
    ],
)
def test_bad_input(arguments, options, error, pattern):
    with pytest.raises(error, match=pattern):
        jaxconv.plan(*arguments, **options)


def test_symbolic_sizes_are_refused():
    x, w = (jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), "float32") for shape in ("1, b, 1, 9", "1, 1, 1, 3"))
    with pytest.raises(ValueError, match=r"needs known sizes, got shape \(1, b, 1, 9\): .* 'xla'"):
        jaxconv.plan(conv, x, w)


def test_algorithm_that_was_never_measured():
    """It is weighed by its arithmetic until constants are fitted, which takes a planner that knows it."""
    cost = REGISTRY["shift"].cost(problem(Case("short", (50,), (3,)), "float32"))
    assert seconds(cost, "new", "cpu", np.dtype("float32")) == 1e-12 * cost.work > 0


def test_gpu_is_the_other_name_of_cuda():
    assert repr(jaxconv.plan((99,), (5,), platform="gpu")) == repr(jaxconv.plan((99,), (5,), platform="cuda"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_simplified_problem_is_the_same_problem(case):
    """No negative padding, nothing unread, as many outputs."""
    whole = problem(case, "float32")
    if whole.empty:
        return
    simple, parts = simplify(whole)
    assert isinstance(simple, Problem)
    assert simple.output_shape == whole.output_shape
    assert simple.input_shape == np.empty(whole.input_shape)[parts.x].shape
    assert simple.kernel_shape == np.empty(whole.kernel_shape)[parts.w].shape
    if not simple.empty:
        assert min((min(pair) for pair in simple.spec.padding), default=0) >= 0
        assert simplify(simple)[0] == simple


def simplified(length, taps, convention="correlation", **spec):
    """Return a simplified one-dimensional problem, and what it reads of the operands."""
    whole = ConvSpec(
        **{"strides": (1,), "padding": ((0, 0),), "lhs_dilation": (1,), "rhs_dilation": (1,)} | spec,
        convention=convention,
        method="auto",
        precision=None,
        out_dtype=np.dtype("float32"),
    )
    return simplify(Problem(1, 1, 1, 1, (length,), (taps,), np.dtype("float32"), whole))


def test_taps_that_meet_only_padding_are_cropped():
    """Three samples in 'same' mode meet five of nine taps."""
    simple, parts = simplified(3, 9, padding=((4, 4),))
    assert (simple.kernel_shape, parts.w) == ((5,), (slice(2, 7),))
    assert simple.spec.padding == ((2, 2),)
    _, parts = simplified(3, 9, "convolution", padding=((5, 3),))
    assert parts.w == (slice(1, 6),)


def test_samples_between_strides_are_skipped():
    """A kernel of one tap and a stride is an ordinary product of every other sample."""
    simple, parts = simplified(9, 1, strides=(2,))
    assert (simple.input_shape, simple.spec.strides, parts.x) == ((5,), (1,), (slice(0, 9, 2),))
    simple, parts = simplified(12, 2, strides=(4,), rhs_dilation=(2,), padding=((1, 1),))
    assert (simple.spec.strides, simple.spec.rhs_dilation, simple.spec.padding) == ((2,), (1,), ((1, 0),))
    assert parts.x == (slice(1, 10, 2),)


def test_what_a_stride_leaves_over_is_not_cropped():
    """Two samples behind the last window, of a stride of 3, stay; three that padding takes away do not."""
    simple, parts = simplified(13, 2, strides=(3,))
    assert (simple.output_shape, simple.spec.padding, parts.x) == ((4,), ((0, 0),), (slice(0, 13, 1),))
    simple, parts = simplified(13, 2, strides=(3,), padding=((1, 2),))
    assert (simple.output_shape, simple.spec.padding, parts.x) == ((5,), ((1, 0),), (slice(0, 13, 1),))
    simple, parts = simplified(13, 2, strides=(3,), padding=((0, -3),))
    assert (simple.output_shape, simple.spec.padding, parts.x) == ((3,), ((0, 0),), (slice(0, 8, 1),))


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [(2.5, "2.5 s"), (0.9996, "1 s"), (0.0123, "12.3 ms"), (999.6e-6, "1 ms"), (999.4e-6, "999 us"), (0.0, "0 us")],
)
def test_durations(seconds, printed):
    """What rounds to a thousand of a unit is one of the next."""
    assert duration(seconds) == printed
