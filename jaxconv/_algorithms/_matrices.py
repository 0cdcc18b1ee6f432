"""Products of matrices of windows: what the two forms of `matmul` share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._algorithms._once import DIVIDED, Call
from jaxconv._cost import Cost, direct_cost, fresh, idle
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

# Items of so many bytes are computed one at a time, rather than transposed, where the caller has channels first: of at
# most NARROW channels, whose windows are slow to gather with the channels behind, and of more.
NARROW = 8
NARROW_ITEM = 2**17
ITEM = 2**20
# Columns of groups are joined as they come if they are a multiple of EVEN_COLUMNS, or have fewer than JOINED elements.
EVEN_COLUMNS = 8
JOINED = 1 << 12
# XLA on CPU has two ways to multiply matrices of floats. That of products is the faster one for at most FEW columns, or
# in half precision, and rows of at least LONG; for others that of convolutions of a single tap is, up to four times.
FEW = 8
LONG = 24


@dataclasses.dataclass(frozen=True)
class Work:
    """What one of the forms does, in elements.

    Attributes
    ----------
    form
        Which form: its products have constants of their own.
    multiply_adds
        Multiply-adds of the products.
    chunks
        Products of each group.
    padded, windows, products
        Elements that padding copies, that are gathered, and that the products have.
    narrow
        Columns of the narrower factor.
    scratch
        Elements of temporaries held at the same time.
    moved
        What transpositions move.
    """

    form: str
    multiply_adds: int
    chunks: int
    padded: int
    windows: int
    products: int
    narrow: int
    scratch: int
    moved: Sequence[tuple[float, float]]

    def cost(self, problem: Problem) -> Cost:
        """Return the cost of the products and of the traffic between them."""
        itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
        form = f"grouped {self.form}" if problem.groups > 1 else self.form
        # Processors that multiply bfloat16 do so at twice the rate.
        twice = self.form == "taps" and factors(problem) == jnp.bfloat16
        return direct_cost(
            problem,
            multiply_adds=self.multiply_adds,
            bytes_moved=itemsize * (self.padded + 2 * self.windows + 2 * self.products),
            scratch=itemsize * self.scratch,
            terms={
                "products": self.chunks * problem.groups,
                "divided": self.multiply_adds >= DIVIDED,
                "padded": itemsize * self.padded,
                # What is put between samples is decided sample by sample.
                "dilated": self.padded * any(step > 1 for step in problem.spec.lhs_dilation),
                **_windows.total_moves(*self.moved),
                "fresh": fresh(itemsize * self.scratch, itemsize * math.prod(problem.y_shape)),
                f"{form} windows": self.windows,
                f"{form} results": self.products,
                f"{form} multiply_adds": self.multiply_adds / (2 if twice else 1),
                f"{form} idle": idle(self.multiply_adds, self.narrow),
            },
        )


def channels_first(problem: Problem, items: int) -> bool:
    """Whether to leave channels in front of the positions, for items that are computed one at a time if there are more.

    Several items would have to be transposed, the channels to the front or to the end, which is what small ones are.
    """
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * sum(map(math.prod, (problem.x_shape, problem.w_shape, problem.y_shape)))
    is_narrow = problem.batch * problem.in_channels <= NARROW * items
    x_order, _, y_order = problem.spec.orders
    held_so = x_order[-1] == y_order[-1] >= 3
    return held_so and (items == 1 or size >= (NARROW_ITEM if is_narrow else ITEM) * items)


def items_at_a_time(items: int, size: int, most: int) -> int:
    """Divide items of so many bytes together into chunks of at most so many, but of one item at least."""
    chunks = min(max(-(-size // most), 1), items)
    chunk = -(-items // chunks)
    # Where nothing is left over, no item is computed twice.
    return next((divisor for divisor in range(chunk, chunk // 2, -1) if items % divisor == 0), chunk)


def layout(problem: Problem, *order: int) -> _windows.Layout:
    """Return a layout without the axis of the groups where there is but one."""
    return _windows.Layout(tuple(axis for axis in order if axis or problem.groups > 1))


def joins(problem: Problem) -> bool:
    """Whether to bring the results of all groups together in a loop over the groups.

    That is where the caller has them side by side, as columns. XLA on CPU would fuse the transposition with their
    merging, and is then up to seven times slower for groups of a number of columns that fill no vectors.
    """
    _, _, y_order = problem.spec.orders
    columns, rows = problem.out_channels, problem.batch * problem.outputs
    return (
        problem.groups > 1 < columns
        and columns % EVEN_COLUMNS > 0
        and y_order[-2:] == (0, 2)
        and rows * columns >= JOINED
    )


def put_groups(part: jax.Array, y: jax.Array, start: Any = 0) -> jax.Array:
    """Write results of groups, part[g, n, *m, o], into the columns y[n, *m, (g, o)], from an item of the batch on."""
    columns = part.shape[-1]

    def step(group: jax.Array, y: jax.Array) -> jax.Array:
        begin = [start, *(0 for _ in y.shape[1:-1]), group * columns]
        return lax.dynamic_update_slice(y, lax.dynamic_index_in_dim(part, group, keepdims=False), begin)

    return lax.fori_loop(0, part.shape[0], step, y)


def without_units(
    once: Call,
    function: Callable[..., jax.Array],
    shape: Sequence[int],
    starts: Sequence[Sequence[int]],
    *operands: jax.Array,
) -> jax.Array:
    """Compute a function of windows' positions and operands, whose result is of a known shape, once.

    Axes of length 1 are left out on the way: XLA on CPU copies what enters or leaves a call if they stand elsewhere
    than by default. It gathers each window in a loop of its own, all of which are equal if it does not see where the
    windows begin.
    """

    def inside(starts: Any, *arrays: jax.Array) -> jax.Array:
        whole = (lax.reshape(array, operand.shape) for array, operand in zip(arrays, operands, strict=True))
        return _squeezed(function(starts, *whole))

    arrays = map(_squeezed, operands)
    if math.prod(map(len, starts)) == 1:
        y = once.apart(functools.partial(inside, starts), *arrays)
    else:
        hidden, read = once.hidden(starts)
        y = once.apart(lambda starts, *arrays: inside(read(starts), *arrays), hidden, *arrays)
    return lax.reshape(y, shape)


def _squeezed(array: jax.Array) -> jax.Array:
    return lax.reshape(array, [size for size in array.shape if size > 1])


def factors(problem: Problem) -> np.dtype:
    """Return the dtype of factors that are multiplied as they are: half precision is, and summed in float32."""
    halves = (np.dtype(jnp.bfloat16), np.dtype(np.float16))
    return problem.dtype if problem.dtype in halves else accumulation_dtype(problem.spec.out_dtype)


def product(
    problem: Problem, a: jax.Array, b: jax.Array, contracted_a: Sequence[int], contracted_b: Sequence[int]
) -> jax.Array:
    """Multiply matrices, those of each group if there are several."""
    batched = ((0,), (0,)) if problem.groups > 1 else ((), ())
    contracted, sums = (tuple(contracted_a), tuple(contracted_b)), accumulation_dtype(problem.spec.out_dtype)
    return lax.dot_general(a, b, (contracted, batched), precision=problem.spec.precision, preferred_element_type=sums)


def product_of_rows(problem: Problem, rows: jax.Array, w: jax.Array, platform: str) -> jax.Array:
    """Multiply rows[g, m, k] by w[g, k, o], in whichever way is faster."""
    length, columns = w.shape[-2:]
    sums = accumulation_dtype(problem.spec.out_dtype)
    faster = length < LONG or (columns > FEW and rows.dtype == sums)
    if platform != "cpu" or problem.groups > 1 or sums != np.float32 or not faster:
        return product(problem, rows, w, (w.ndim - 1,), (w.ndim - 2,))
    names = ("NWC", "WIO", "NWC")
    rows, w = lax.expand_dims(rows.astype(sums), (1,)), lax.expand_dims(w.astype(sums), (0,))
    y = lax.conv_general_dilated(rows, w, (1,), "VALID", dimension_numbers=names, precision=problem.spec.precision)
    return lax.squeeze(y, (1,))
