"""Bad input: the right exception, with the offending numbers and the remedy; the same eagerly, traced and mapped."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv._algorithms import REGISTRY, Algorithm, register
from jaxconv._ops import conv
from jaxconv._plan import method_names

X, W = (1, 2, 3, 8), (1, 4, 3, 3)
PLANE_X, PLANE_W = (1, 1, 1, 9, 9), (1, 1, 1, 3, 3)

SHAPES = [
    pytest.param((1, 2, 3, 8), (1, 4, 2, 3), r"3 channels.*2", id="channels"),
    pytest.param((2, 2, 3, 8), (3, 4, 3, 3), r"2 groups.*3", id="groups"),
    pytest.param((1, 2, 3, 8, 8), (1, 4, 3, 3), r"spatial.*2 .*1 ", id="mixed-ranks"),
    pytest.param((2, 3), (2, 3), r"3 axes.*\(2, 3\)", id="too-few-axes"),
]

OPTIONS = [
    pytest.param(X, W, {"strides": (0,)}, ValueError, r"strides.*positive.*0", id="zero-stride"),
    pytest.param(X, W, {"strides": (-2,)}, ValueError, r"strides.*positive.*-2", id="negative-stride"),
    pytest.param(X, W, {"lhs_dilation": (0,)}, ValueError, r"lhs_dilation.*positive.*0", id="zero-lhs-dilation"),
    pytest.param(X, W, {"rhs_dilation": (-1,)}, ValueError, r"rhs_dilation.*positive.*-1", id="negative-rhs-dilation"),
    pytest.param(PLANE_X, PLANE_W, {"strides": (1, 0)}, ValueError, r"strides.*\(1, 0\)", id="second-stride"),
    pytest.param(X, W, {"strides": (1, 2)}, ValueError, r"strides.*2.*1", id="too-many-strides"),
    pytest.param(PLANE_X, PLANE_W, {"rhs_dilation": (2,)}, ValueError, r"rhs_dilation.*1.*2", id="too-few-dilations"),
    pytest.param(X, W, {"strides": 2}, TypeError, r"strides.*sequence.*2", id="bare-stride"),
    pytest.param(X, W, {"strides": (1.5,)}, TypeError, r"strides.*integer.*1\.5", id="fractional-stride"),
    pytest.param(X, W, {"strides": (True,)}, TypeError, r"strides.*integer.*True", id="boolean-stride"),
    pytest.param(X, W, {"padding": ((1, 1), (1, 1))}, ValueError, r"padding.*2.*1", id="too-many-pads"),
    pytest.param(X, W, {"padding": (1,)}, ValueError, r"padding.*pair.*1", id="pad-without-pair"),
    pytest.param(X, W, {"padding": ((1, 2, 3),)}, ValueError, r"padding.*pair.*3", id="pad-triple"),
    pytest.param(X, W, {"padding": ((1, 0.5),)}, TypeError, r"padding.*integer.*0\.5", id="fractional-pad"),
    pytest.param(X, W, {"padding": "SAME"}, ValueError, r"padding", id="pad-by-name"),
    pytest.param(X, W, {"convention": "conv"}, ValueError, r"'conv'.*'correlation', 'convolution'", id="convention"),
    pytest.param(X, W, {"convention": None}, ValueError, r"None.*'correlation', 'convolution'", id="no-convention"),
    pytest.param(X, W, {"method": "quick"}, ValueError, r"'quick'.*'auto', 'direct'", id="method"),
    pytest.param(X, W, {"method": None}, ValueError, r"None.*'auto', 'direct'", id="no-method"),
    pytest.param(X, W, {"method": ("auto", "fft")}, ValueError, r"triple", id="pair-of-methods"),
    pytest.param(X, W, {"method": ("auto", "fft", "quick")}, ValueError, r"'quick'.*triple", id="method-in-triple"),
    pytest.param(X, W, {"precision": "splendid"}, ValueError, r"(?i)precision", id="precision"),
    pytest.param(X, W, {"precision": 3.5}, ValueError, r"precision.*3\.5", id="precision-number"),
    pytest.param(X, W, {"precision": ("high",) * 3}, ValueError, r"precision.*pair", id="precision-triple"),
    pytest.param(X, W, {"preferred_element_type": "int32"}, TypeError, r"int32.*float32", id="preferred-kind"),
    pytest.param(X, W, {"preferred_element_type": "bfloat16"}, TypeError, r"bfloat16.*float32", id="preferred-narrow"),
]


def assert_raises(function, x, w, error, pattern):
    """The same exception eagerly, under `jit` and under `vmap`; its message is one string."""
    batched = (np.stack([x, x]), w)
    for run, arguments in ((function, (x, w)), (jax.jit(function), (x, w)), (jax.vmap(function, (0, None)), batched)):
        with pytest.raises(error, match=re.compile(pattern, re.DOTALL)) as caught:
            run(*arguments)
        assert len(caught.value.args) == 1
        assert isinstance(caught.value.args[0], str)


@pytest.mark.parametrize(("x_shape", "w_shape", "pattern"), SHAPES)
def test_shapes(x_shape, w_shape, pattern):
    assert_raises(conv, np.ones(x_shape, "float32"), np.ones(w_shape, "float32"), ValueError, pattern)


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "error", "pattern"), OPTIONS)
def test_options(x_shape, w_shape, options, error, pattern):
    x, w = np.ones(x_shape, "float32"), np.ones(w_shape, "float32")
    assert_raises(functools.partial(conv, **options), x, w, error, pattern)


@pytest.mark.parametrize("operand", [0, 1])
def test_booleans(operand):
    operands = [np.ones(X, "float32"), np.ones(W, "float32")]
    operands[operand] = operands[operand] > 0
    assert_raises(conv, *operands, TypeError, r"bool.*convert")


@pytest.mark.parametrize("name", [name for name, algorithm in REGISTRY.items() if algorithm.uses_fft])
def test_integers_through_an_fft(name):
    x, w = np.ones(X, "int32"), np.ones(W, "int32")
    assert_raises(functools.partial(conv, method=name), x, w, ValueError, rf"'{name}'.*int32.*('direct'|'auto')")


def test_named_method_that_cannot():
    """Refused at the call, with the reason, the shapes and those that can."""
    x, w = np.ones((1, 1, 1, 2000), "float32"), np.ones((1, 1, 1, 1000), "float32")
    reason = r"'shift'.*2000.*1000.*unroll 1000.*'xla'"
    assert_raises(functools.partial(conv, method="shift"), x, w, ValueError, reason)


@pytest.mark.parametrize(
    ("method", "role"),
    [(("xla", "shift", "xla"), "gradient of its input"), (("xla", "xla", "shift"), "gradient of its kernel")],
)
def test_triple_of_which_one_cannot(method, role):
    """Whoever names the algorithm of a gradient learns at the call that it cannot run it."""
    x, w = np.ones((1, 4, 1, 400), "float32"), np.ones((1, 3, 1, 100), "float32")
    assert_raises(functools.partial(conv, method=method), x, w, ValueError, rf"'shift'.*{role}")


@pytest.mark.parametrize("method", ["quick", ("auto", "auto", "quick")])
def test_unknown_method_lists_every_name(method):
    with pytest.raises(ValueError, match="quick") as caught:
        conv(jnp.ones(X), jnp.ones(W), method=method)
    for name in (*REGISTRY, *method_names()):
        assert repr(name) in str(caught.value)


def test_second_algorithm_of_a_name():
    name, algorithm = next(iter(REGISTRY.items()))
    before = dict(REGISTRY)
    with pytest.raises(ValueError, match=f"'{name}'.*already"):
        register(
            Algorithm(name, algorithm.summary, algorithm.uses_fft, algorithm.supports, algorithm.cost, algorithm.run)
        )
    assert before == REGISTRY
