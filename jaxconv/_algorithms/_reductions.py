"""Sums of many arrays at once: those that the outputs of a kernel gradient are."""

import itertools
import math
from collections.abc import Collection, Sequence

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

# In how many blocks to cut what is summed.
BLOCKS = (3, 4, 5, 6, 7, 8, 9, 10)
# How many blocks of all arrays together (complex ones count four times) are added up in one loop. LLVM writes out the
# loop over blocks, and vectorises the one around it, only if that does not become too long.
TOGETHER = 96
# How long the blocks of the innermost axis are, about, and how many elements a vector has.
LENGTH = 4096
LANES = 8
# How many bytes are fetched at a time. Blocks that begin a multiple of 4096 bytes apart would share their places in the
# first cache, and displace each other: long ones have an odd number of lines, and places of their own.
LINE = 64
MANY_LINES = 16


def totals(arrays: Sequence[jax.Array], kept: Collection[int]) -> jax.Array:
    """Sum each of some arrays of one shape over all axes but those ``kept``, and stack the results.

    An axis is cut into blocks that are added up elementwise, ``part[v] = sum_b array[b, v]``; then parts are summed.
    Several arrays are added up by one reduction: XLA on CPU fuses into that what makes the arrays, so that what they
    share is read once, and LLVM vectorises the loop. A reduction to a single number into which products are fused is
    not vectorised, and takes 10 to 20 times longer.
    """
    shape = arrays[0].shape
    summed = [axis for axis in range(len(shape)) if axis not in kept]
    together = TOGETHER // (4 if jnp.iscomplexobj(arrays[0]) else 1)
    # In as few passes over what the arrays share as blocks of any number allow.
    at_once = math.ceil(len(arrays) / math.ceil(len(arrays) * BLOCKS[0] / together))
    axis, count, blocks, length = _cut(shape, kept, arrays[0].dtype.itemsize, together // at_once)
    whole = count * blocks * length
    # Axes of length 1 make XLA's loops slower.
    cut = (*shape[:axis], *[count][: count > 1], blocks, *[length][: length > 1], *shape[axis + 1 :])
    stops = np.linspace(0, len(arrays), math.ceil(len(arrays) * blocks / together) + 1).astype(int)
    parts, rests = [], []
    for some in (arrays[first:stop] for first, stop in itertools.pairwise(stops)):
        blocked = [lax.slice_in_dim(each, 0, whole, axis=axis).reshape(cut) for each in some]
        parts += _add_up(blocked, [axis + (count > 1)])
        if whole < shape[axis]:
            rest = [lax.slice_in_dim(each, whole, shape[axis], axis=axis) for each in some]
            rests += _add_up(rest, [axis] if kept else summed)
    gone = [number - (number > axis) for number in kept]  # where they are without the axis
    total = _sum_each(parts, kept if count > 1 else gone)
    return total + _sum_each(rests, gone) if rests else total


def _cut(shape: Sequence[int], kept: Collection[int], itemsize: int, most: int) -> tuple[int, int, int, int]:
    """Return which axis to cut, into how many groups of at most so many blocks, how many those are, and how long."""
    last = len(shape) - 1

    def cut(axis: int, blocks: int) -> tuple[float, int, int, int, int]:
        size = shape[axis]
        # An even number of groups can be divided among cores.
        length = max(size // (blocks * max(size // (blocks * LENGTH) // 2 * 2, 1)), 1) if axis == last else 1
        if (lines := length * itemsize // LINE) >= MANY_LINES:
            length = (lines - (lines % 2 == 0)) * LINE // itemsize
        count, rest = divmod(size, blocks * length)
        if rest == 1 and count > 1 and kept:
            count, rest = count - 1, rest + blocks * length  # XLA does not fuse what sums a single block
        # Parts are written and read again. A rest is summed without vector instructions if nothing is kept.
        work = 1 + 2 / blocks + rest / size * (1 if kept else LANES)
        return work * (1 + LANES / (length if axis == last else shape[last])), axis, count, blocks, length

    axes = [axis for axis in range(len(shape)) if axis not in kept]
    cuts = [cut(axis, blocks) for axis, blocks in itertools.product(axes, BLOCKS) if blocks <= min(shape[axis], most)]
    if cuts:
        return min(cuts)[1:]
    axis = max(axes, key=shape.__getitem__)
    return axis, 1, shape[axis], 1


def _add_up(arrays: Sequence[jax.Array], axes: Sequence[int]) -> list[jax.Array]:
    """Sum arrays over some axes, in one loop."""
    zeros = [jnp.zeros((), array.dtype) for array in arrays]
    return lax.reduce(list(arrays), zeros, lambda a, b: [lax.add(*pair) for pair in zip(a, b, strict=True)], axes)


def _sum_each(arrays: Sequence[jax.Array], kept: Collection[int]) -> jax.Array:
    axes = [axis for axis in range(arrays[0].ndim) if axis not in kept]
    return jnp.stack([jnp.sum(array, axis=axes, dtype=array.dtype) for array in arrays])
