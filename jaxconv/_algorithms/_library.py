"""How the library that XLA on CPU hands convolutions to divides them among cores.

It is YNNPACK. It computes each row of outputs, one after the other, as a product of matrices, and cuts that into tiles,
which are what the cores share: a row of few outputs and channels is a single tile, which one core computes. Sizes are
those that `choose_split_factors` in `ynnpack/subgraph/dot.cc` arrives at, of 2026.
"""

import itertools

from jaxconv._spec import Problem

# A tile begins with so many outputs, and with as many channels as fill PANEL elements of the kernel. Both sides grow to
# SIDE, and on until the tile has EFFORT outputs, or the sum of its sides times the length of the sums, of which DEPTH
# counts at most, comes to as much. Its height is at most SLENDER times its width, if either can still grow.
OUTPUTS = 16
SIDE = 64
PANEL = 1 << 15
DEPTH = 1 << 10
EFFORT = 1 << 16
SLENDER = 4
# Of more tiles each core computes about as many.
MANY = 16


def busier(problem: Problem) -> float:
    """Return the share of the products that the busier one of two cores computes."""
    length, columns, depth = problem.output_shape[-1], problem.out_channels, problem.in_channels * problem.taps
    sides = _tile(length, columns, depth)
    if -(-length // sides[0]) * -(-columns // sides[1]) > MANY:
        return 0.5
    tiles = [height * width for height, width in itertools.product(*map(_cut, (length, columns), sides))]
    cores = [0, 0]
    for tile in sorted(tiles, reverse=True):
        cores[cores.index(min(cores))] += tile
    return max(cores) / sum(cores)


def _cut(size: int, most: int) -> list[int]:
    """Cut a size into parts of so much, and what is left."""
    return [min(most, size - start) for start in range(0, size, most)]


def _tile(length: int, columns: int, depth: int) -> tuple[int, int]:
    """Return how many outputs of a row, and how many of their channels, a tile has."""
    height, width = min(length, OUTPUTS), min(columns, SIDE * max(PANEL // (SIDE * depth), 1))
    least = min(length, SIDE) * min(columns, SIDE)
    while height * width < least or max((height + width) * min(depth, DEPTH), height * width) < EFFORT:
        if (SLENDER * width <= height or height >= length) and width < columns:
            width *= 2
        elif (height <= SLENDER * width or width >= columns) and height < length:
            height *= 2
        else:
            break
    return height, width
