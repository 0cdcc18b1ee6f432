"""Sums that are written out: what the two forms of `shift` share."""

import dataclasses
import math
from collections.abc import Mapping

from jaxconv._algorithms._once import DIVIDED
from jaxconv._cost import Cost, direct_cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

# An axis that is shorter than so many elements is too short to be innermost.
SHORT = 8
# How many bytes a vector instruction takes.
VECTOR = 32


@dataclasses.dataclass(frozen=True)
class Work:
    """What one of the forms does, in elements.

    Attributes
    ----------
    sums
        Multiply-adds.
    innermost
        Length of the runs that they are computed in.
    padded, copied
        Elements that padding copies, and those of other copies.
    rounds, copied_each
        In how many rounds of a loop sums are computed, and how many elements each of those copies.
    partial
        Elements of partial sums.
    terms
        Terms of the cost that are the form's own.
    """

    sums: float
    innermost: int
    padded: int
    copied: int
    rounds: int
    copied_each: int
    terms: Mapping[str, float]
    partial: int = 0

    def cost(self, problem: Problem) -> Cost:
        """Return the cost of the sums and of the traffic around them."""
        itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
        inputs, outputs, filled = math.prod(problem.x_shape), math.prod(problem.y_shape), lanes(problem)
        bytes_moved = itemsize * (inputs + 2 * (self.padded + self.copied + self.rounds * self.copied_each) + outputs)
        scratch = itemsize * (self.padded + self.copied + self.copied_each + self.partial)
        return direct_cost(
            problem,
            multiply_adds=problem.multiply_adds,
            bytes_moved=bytes_moved,
            scratch=scratch,
            terms={
                "bytes": bytes_moved,
                "fresh": fresh(scratch, itemsize * outputs),
                **self.terms,
                # What is put between samples is decided sample by sample.
                "dilated": self.padded * any(step > 1 for step in problem.spec.lhs_dilation),
                # What is divided among cores has to wake them.
                "divided": self.sums >= DIVIDED,
                # Each run begins anew, and what does not fill a vector at its end is computed one by one; measured by
                # the run that leaves as much as the average one.
                "runs": self.sums / self.innermost * (1 + self.innermost % filled) / ((1 + filled) / 2),
            },
        )


def lanes(problem: Problem) -> int:
    """Return how many numbers a vector instruction adds up."""
    return max(VECTOR // accumulation_dtype(problem.spec.out_dtype).itemsize, 1)


def innermost(order: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Return the last axis that is longer than 1."""
    return next((axis for axis in reversed(order) if shape[axis] > 1), order[-1])
