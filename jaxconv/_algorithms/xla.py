"""`jax.lax.conv_general_dilated`: dense layers of many channels, and the fallback for everything.

The convolution is always emitted channels-last (NHWC, HWIO, NHWC), adjoints included: inside a loop body XLA on CPU
sends any other layout to a naive implementation that is 20 to 100 times slower (jax issue 12868). Groups of several
channels, which `vmap` over both operands makes too, are convolutions of their own, since XLA's grouped convolution on
CPU is several times slower than those: a few are unrolled, so that XLA computes some at the same time, more are looped
over, since each that is unrolled takes 20 to 60 ms to compile; many are if there is enough work in each. Where the
kernel has more samples than the input, which padding makes possible, the padding is a step of its own: otherwise XLA
exchanges the two, into a form with a reversed window that it then computes in that naive implementation. So it is where
XLA would form patches of a padded plane for a few long sums, as for the kernel gradient of a layer of few channels:
that is 2 to 5 times slower. The library that computes convolutions along two axes is up to 20 times slower for a large
input that is not padded at all: it is left the last sample of the padding, or made to compute one output more, which is
cut off. In double precision convolutions along one axis are emitted with a second one of length 1: XLA on CPU hands
those along two axes to a library, where its own code would be the naive one.

Cost: every multiply-add of the definition, those that meet padding or inserted zeros included, and im2col's traffic.

Error: that of a sum of products in any order, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise with N products a sum
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 3.1).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _library, _windows
from jaxconv._cost import Cost, direct_cost, fresh, idle
from jaxconv._dtypes import accumulation_dtype, is_complex
from jaxconv._spec import Problem, dilated, is_static

# Up to so many groups of several channels are unrolled, or up to MAX_GROUPS for kernel gradients, whose loop would be
# slower. More are looped over, one group at a time; those beyond MAX_GROUPS if each has this much work.
MAX_UNROLLED_GROUPS = 8
MAX_GROUPS = 16
MIN_LOOPED_MULTIPLY_ADDS = 1 << 18
# With so few channels XLA on CPU calls no library.
LIBRARY_CHANNELS = 16
# Channels are read fast if there is a multiple of so many.
EVEN = 8
# An unpadded input is large from so many bytes, each counted once for every output that reads it, for as many input as
# output channels.
LARGE_UNPADDED = 7 << 20


def supports(problem: Problem) -> str | None:
    """Return None: it runs everything."""
    del problem
    return None


def _unrolled(problem: Problem) -> bool:
    sums_are_long = problem.static and problem.outputs < problem.taps
    most = MAX_GROUPS if sums_are_long else MAX_UNROLLED_GROUPS
    return 1 < problem.groups <= most and problem.in_channels * problem.out_channels > 1


def _looped(problem: Problem) -> bool:
    if problem.groups > MAX_GROUPS:
        sizes = (problem.batch, problem.in_channels, problem.out_channels, *problem.output_shape, *problem.kernel_shape)
        # Sizes that are symbols may be 1.
        return math.prod(size for size in sizes if is_static(size)) >= MIN_LOOPED_MULTIPLY_ADDS
    return problem.groups > 1 < problem.in_channels * problem.out_channels and not _unrolled(problem)


def cost(problem: Problem) -> Cost:
    """Return the cost of the definition, as a matrix product over patches."""
    itemsize = np.dtype(problem.spec.out_dtype).itemsize
    outputs = problem.groups * problem.batch * problem.outputs
    pixels = outputs * problem.taps
    patches = pixels * problem.in_channels
    products = problem.multiply_adds / math.prod(problem.spec.lhs_dilation)
    emitted = _emitted(problem)
    by_library = _by_library(emitted)
    # XLA on CPU has fast code for one and two spatial axes, slower code for three, and a naive loop for the rest.
    kind = "library" if by_library else "plane" if problem.spec.ndim < 3 else "volume"
    looped = _looped(problem)
    whole = problem.groups > 1 and not (_unrolled(problem) or looped)
    of_groups = {
        "looped convolutions" if looped else "convolutions": problem.groups,
        # Results of groups are copied into one array.
        "joined": math.prod(problem.y_shape) * (problem.groups > 1),
    }
    if whole:
        terms = {
            f"grouped {kind} outputs": outputs * problem.out_channels,
            f"grouped {kind} products": problem.multiply_adds,
            # In float64 XLA multiplies every group's channels by the kernels of all groups.
            f"grouped {kind} expanded": problem.multiply_adds * problem.groups,
        }
    elif problem.groups * problem.in_channels * problem.out_channels == 1 and problem.taps <= 2:
        # XLA writes out such a sum itself.
        terms = {"short sums": outputs}
    elif (
        not looped
        and problem.in_channels * problem.out_channels == 1
        and sum(taps > 1 for taps in problem.kernel_shape) <= 1
    ):
        # Vectorised along the last axis; otherwise a tap at a time.
        kind = "line" if problem.kernel_shape[-1] > 1 or problem.taps == 1 else "column"
        terms = {}
        if problem.outputs < problem.taps:
            kind = f"long {kind}"
            # Several outputs are computed at the same time, by vector instructions, which few leave idle.
            terms[f"{kind} taps"] = problem.groups * problem.batch * problem.taps
        terms |= {
            f"{kind} outputs": outputs,
            f"{kind} pixels at edges": pixels * _edge_share(problem),
            f"{kind} products": products,
        }
    elif _is_product(problem) and not by_library:
        terms = {
            **of_groups,
            "pointwise outputs": outputs,
            "pointwise results": math.prod(problem.y_shape),
            "pointwise products": products,
            "pointwise idle": idle(products, problem.out_channels),
        }
    else:
        if problem.spec.ndim > 3 or (problem.spec.ndim == 3 and max(problem.spec.rhs_dilation) > 1):
            kind = "other"
        if problem.outputs < problem.taps:
            kind = f"long {kind}"
        terms = {
            **of_groups,
            f"{kind} outputs": outputs,
            f"{kind} pixels": pixels,
            f"{kind} pixels at edges": pixels * _edge_share(problem),
            f"{kind} patches": patches,
            f"{kind} accumulations": pixels * problem.out_channels,
            f"{kind} patches with zeros": patches * any(step > 1 for step in problem.spec.lhs_dilation),
            # Products with the zeros of a dilated input are mostly left out.
            f"{kind} products": products,
            f"{kind} idle": idle(products, problem.out_channels),
            # Vectors of channels are loaded whole.
            f"{kind} ragged": products * (problem.in_channels % EVEN > 0 or problem.out_channels % EVEN > 0),
            f"{kind} products of the busier core": products * _library.busier(emitted),
            # Sums over all positions, such as the kernel gradient of a pointwise layer, are not its strength.
            "single products": products * (problem.outputs == 1),
            "kernel": math.prod(problem.w_shape),
        }
    # Copies with the channels last; patches are formed a block at a time.
    spatial = tuple(range(3, 3 + problem.spec.ndim))
    orders = problem.spec.orders
    wanted = [(1, *spatial, 2), (*spatial, 2, 1), (1, *spatial, 2)]
    for number, (order, beside) in enumerate(zip(wanted, _beside(problem), strict=True)):
        wanted[number] = (*order[:-1], 0, order[-1]) if whole or beside else (0, *order)
    shapes = (problem.x_shape, problem.w_shape, problem.y_shape)
    moved = _windows.total_moves(*map(_windows.moves, shapes, orders, wanted))
    scratch = itemsize * sum(map(math.prod, shapes))
    return direct_cost(
        problem,
        multiply_adds=problem.multiply_adds,
        bytes_moved=itemsize * patches,
        scratch=scratch,
        terms={"fresh": fresh(scratch, itemsize * math.prod(problem.y_shape)), **moved, **terms},
    )


def _is_product(problem: Problem) -> bool:
    """Whether XLA makes it a product of matrices."""
    steps = (*problem.spec.strides, *problem.spec.lhs_dilation)
    return problem.taps == 1 and not any(map(any, problem.spec.padding)) and all(step == 1 for step in steps)


def _exceeds_input(problem: Problem) -> bool:
    return problem.taps > math.prod(problem.input_shape)


def _pads_first(problem: Problem) -> bool:
    """Whether padding is a step of its own."""
    sums_are_long = problem.outputs < problem.taps and not _by_library(problem)
    return _exceeds_input(problem) or (problem.spec.ndim == 2 and any(problem.spec.padding[-1]) and sums_are_long)


def _emitted(problem: Problem) -> Problem:
    """Return the convolution that XLA is given, of the same kernel, after padding that is a step of its own.

    It may have one output more than the problem along one axis.
    """
    spec = problem.spec
    if not _pads_first(problem):
        axis = _extended_axis(problem)
        return problem if axis is None else _with_padding(problem, axis, (0, spec.strides[axis]))
    emitted = _unpadded(problem)
    if _is_large(emitted) and _by_library(emitted):
        # The last sample of some padding is left to the convolution, if the library still takes it.
        lasts = [_unpadded(problem, axis) for axis, (_, end) in enumerate(spec.padding) if end > 0]
        return next(filter(_by_library, lasts), emitted)
    return emitted


def _unpadded(problem: Problem, but_last: int | None = None) -> Problem:
    """Return the problem on the padded input, but for the last sample of the padding of an axis."""
    spec = problem.spec
    left = [(0, int(axis == but_last)) for axis in range(spec.ndim)]
    sizes = zip(problem.input_shape, spec.lhs_dilation, spec.padding, left, strict=True)
    shape = tuple(dilated(length, step) + sum(pads) - end for length, step, pads, (_, end) in sizes)
    spec = dataclasses.replace(spec, padding=tuple(left), lhs_dilation=(1,) * spec.ndim)
    return dataclasses.replace(problem, input_shape=shape, spec=spec)


def _with_padding(problem: Problem, axis: int, pads: tuple[int, int]) -> Problem:
    padding = (*problem.spec.padding[:axis], pads, *problem.spec.padding[axis + 1 :])
    return dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, padding=padding))


def _is_large(problem: Problem) -> bool:
    """Whether the input is large for a library that it reaches without padding."""
    size = np.dtype(problem.spec.out_dtype).itemsize * problem.batch * math.prod(problem.input_shape)
    stride = math.prod(problem.spec.strides)
    return (
        problem.taps > 2 * stride
        and size * problem.in_channels**2 * problem.taps >= LARGE_UNPADDED * stride * problem.out_channels
    )


def _extended_axis(problem: Problem) -> int | None:
    """Return the axis along which one output more than asked for is computed, so that the input is padded, if any."""
    if any(map(any, problem.spec.padding)) or not (_is_large(problem) and _by_library(problem)):
        return None
    # Those with room for another output: the library takes no output that is larger than the input.
    axes = [i for i, (n, m) in enumerate(zip(problem.input_shape, problem.output_shape, strict=True)) if m < n]
    return max(axes, key=lambda axis: problem.output_shape[axis], default=None)


def _gains_an_axis(problem: Problem) -> bool:
    dtype = np.dtype(problem.spec.out_dtype)
    return problem.spec.ndim == 1 and dtype in (np.float64, np.complex128)


def _by_library(problem: Problem) -> bool:
    """Whether XLA on CPU hands a convolution to a library.

    These are its conditions, as far as they can be seen from the programs that it compiles.
    """
    groups = 1 if _unrolled(problem) or _looped(problem) else problem.groups
    axes = zip(problem.input_shape, problem.kernel_shape, problem.output_shape, problem.spec.lhs_dilation, strict=True)
    return (
        (problem.spec.ndim == 2 or _gains_an_axis(problem))
        and max(problem.in_channels, problem.out_channels) * groups > LIBRARY_CHANNELS
        and all(step == 1 and max(taps, m) <= length for length, taps, m, step in axes)
    )


def _edge_share(problem: Problem) -> float:
    """Return the share of outputs whose window reaches into the padding."""
    if _pads_first(problem):
        return 0.0
    inside = 1.0
    for length, stride, pads in zip(problem.output_shape, problem.spec.strides, problem.spec.padding, strict=True):
        inside *= max(length - sum(-(-pad // stride) for pad in pads), 0) / length
    return 1 - inside


def _channels_last(problem: Problem, x: jax.Array, w: jax.Array, groups: int) -> jax.Array:
    """Convolve x[n, *S, groups * c] with w[*K, c, groups * o]: y[n, *M, groups * o]."""
    spec = problem.spec
    accumulator = accumulation_dtype(spec.out_dtype)
    if is_complex(accumulator):
        x, w = x.astype(accumulator), w.astype(accumulator)
    # `conv_general_dilated` takes no symbols for padding, and reads outside the array for some negative amounts, which
    # are simplified away where all sizes are known; `pad` takes both.
    of_pad = not problem.static and not all(is_static(pad) and pad >= 0 for pads in spec.padding for pad in pads)
    emitted = _emitted(problem) if problem.static else _unpadded(problem) if of_pad else problem
    padding, lhs_dilation = emitted.spec.padding, emitted.spec.lhs_dilation
    if of_pad or (problem.static and _pads_first(problem)):
        before = zip(spec.padding, padding, spec.lhs_dilation, strict=True)
        amounts = [(low, high - left, dilation - 1) for (low, high), (_, left), dilation in before]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *amounts, (0, 0, 0)])
        # Without it XLA would make the padding a part of the convolution again.
        x = lax.optimization_barrier(x)
    strides, rhs_dilation = spec.strides, spec.rhs_dilation
    if _gains_an_axis(problem):
        x, w = lax.expand_dims(x, (1,)), lax.expand_dims(w, (0,))
        padding = ((0, 0), *padding)
        strides, lhs_dilation, rhs_dilation = ((1, *steps) for steps in (strides, lhs_dilation, rhs_dilation))
    axes = tuple(range(1, x.ndim - 1))
    last = (0, x.ndim - 1, *axes)
    kernel = (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    y = lax.conv_general_dilated(
        x,
        w,
        strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        lax.ConvDimensionNumbers(last, kernel, last),
        feature_group_count=groups,
        precision=spec.precision,
        preferred_element_type=accumulator,
    )
    if _gains_an_axis(problem):
        y = lax.squeeze(y, (1,))
    if problem.static and emitted.output_shape != problem.output_shape:
        y = lax.slice(y, (0,) * y.ndim, (y.shape[0], *problem.output_shape, y.shape[-1]))
    return y.astype(spec.out_dtype)


def _beside(problem: Problem) -> tuple[bool, ...]:
    """Return of x, w and y whether the caller has the groups beside what is innermost when it is convolved."""
    orders = zip(problem.spec.orders, (2, 1, 2), strict=True)
    return tuple(problem.groups > 1 and order[-2:] == (0, innermost) for order, innermost in orders)


def _group_by_group(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands, each group by a convolution of its own.

    Where the caller has the groups beside the innermost channels they stay there, so that each reads and writes columns
    of what he holds.
    """
    groups, spatial = problem.groups, tuple(range(3, x.ndim))
    x_beside, w_beside, y_beside = _beside(problem)
    xs, ws = _in_groups(x, (1, *spatial, 2), x_beside), _in_groups(w, (*spatial, 2, 1), w_beside)

    def result(group: Any) -> jax.Array:
        pair = _of_group(xs, group, groups, x_beside), _of_group(ws, group, groups, w_beside)
        y = _channels_last(problem, *pair, groups=1)
        return y if y_beside else lax.expand_dims(y, (0,))

    where = len(spatial) + 1 if y_beside else 0
    if _looped(problem):
        shape = [problem.batch, *problem.output_shape, problem.out_channels]
        shape = (*shape[:-1], groups * shape[-1]) if y_beside else (groups, *shape)

        def step(group: jax.Array, y: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(y, result(group), group * (shape[where] // groups), where)

        y = lax.fori_loop(0, groups, step, _windows.zeros_like(x, shape).astype(problem.spec.out_dtype))
    else:
        y = lax.concatenate([result(group) for group in range(groups)], where)
    if y_beside:
        y = y.reshape(*y.shape[:-1], groups, problem.out_channels)
        return y.transpose(where, 0, where + 1, *range(1, where))
    return y.transpose(0, 1, y.ndim - 1, *range(2, y.ndim - 1))


def _in_groups(operand: jax.Array, order: tuple[int, ...], beside: bool) -> jax.Array:
    """Bring each group's axes to an order, the groups merged with the last of them if ``beside``, else in front."""
    if not beside:
        return operand.transpose(0, *order)
    operand = operand.transpose(*order[:-1], 0, order[-1])
    return operand.reshape(*operand.shape[:-2], -1)


def _of_group(operand: jax.Array, group: Any, groups: int, beside: bool) -> jax.Array:
    """Return what `_in_groups` has of one group."""
    if groups == 1:
        return operand if beside else lax.squeeze(operand, (0,))
    if not beside:
        return lax.dynamic_index_in_dim(operand, group, keepdims=False)
    size = operand.shape[-1] // groups
    return lax.dynamic_slice_in_dim(operand, group * size, size, operand.ndim - 1)


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    spec = problem.spec
    ndim = spec.ndim
    w = _windows.as_correlation(problem, w)
    if not is_static(problem.groups):
        raise ValueError(
            f"the number of groups is symbolic ({problem.groups}): `vmap` over both operands of a convolution "
            "cannot be exported with a symbolic batch size; export it with a fixed one, or loop over pairs with "
            "jax.lax.map"
        )
    axes = tuple(range(ndim))
    if _unrolled(problem) or _looped(problem) or problem.groups == 1:
        return _group_by_group(problem, x, w)
    xs = x.transpose(1, *(3 + a for a in axes), 0, 2).reshape(
        problem.batch, *problem.input_shape, problem.groups * problem.in_channels
    )
    ws = w.transpose(*(3 + a for a in axes), 2, 0, 1).reshape(
        *problem.kernel_shape, problem.in_channels, problem.groups * problem.out_channels
    )
    ys = _channels_last(problem, xs, ws, problem.groups)
    ys = ys.reshape(problem.batch, *problem.output_shape, problem.groups, problem.out_channels)
    return ys.transpose(1 + ndim, 0, 2 + ndim, *(1 + a for a in axes))
