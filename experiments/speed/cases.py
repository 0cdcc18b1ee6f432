"""Named cases: one operation each, with what to measure of it."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
from collections.abc import Sequence
from typing import Literal

from experiments.speed.operations import DIRECTIONS, Direction, Operation

Source = Literal["complaint", "sweep", "race"]

# Kinds of problems, in the order of the page.
GROUPS = (
    "1-D",
    "2-D",
    "3-D",
    "dense",
    "depthwise",
    "grouped",
    "dilated",
    "strided",
    "transposed",
    "models",
    "per-sample",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One operation with what to measure of it.

    Attributes
    ----------
    name
        Unique; what the command line takes.
    group
        Kind of problem, one of `GROUPS`.
    operation
        Shapes and options.
    what
        What it is, in words.
    issue
        Where somebody asked for it, as "owner/repository#number".
    directions, dtypes
        What is measured.
    source
        Whether it stems from a complaint, from a systematic sweep or from a random draw.
    quick
        Whether the quick form measures it.
    patience
        Ways of which a call would take more seconds than this, as far as one can tell beforehand, are not run.
    """

    name: str
    group: str
    operation: Operation
    what: str = ""
    issue: str = ""
    directions: tuple[Direction, ...] = DIRECTIONS
    dtypes: tuple[str, ...] = ("float32",)
    source: Source = "sweep"
    quick: bool = False
    patience: float = 1.0

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"unknown group {self.group!r} of case {self.name!r}: choose one of {', '.join(GROUPS)}")


class UnknownCaseError(ValueError):
    """A name that no case has."""


@functools.cache
def registry() -> dict[str, Case]:
    """Return all cases by name."""
    from experiments.speed import complaints, sweeps

    cases = (*complaints.complaints(), *sweeps.sweeps(), *sweeps.race())
    named = {case.name: case for case in cases}
    if len(named) != len(cases):
        raise ValueError("two cases have the same name")
    return named


def select(names: Sequence[str]) -> list[Case]:
    """Return the cases with the given names, groups, sources or patterns such as ``a1*``, in the order of the registry.

    Raises
    ------
    UnknownCaseError
        If nothing has one of the names.
    """
    chosen: set[str] = set()
    for name in names:
        found = {
            case.name
            for case in registry().values()
            if name in (case.group, case.source) or fnmatch.fnmatchcase(case.name, name)
        }
        if not found:
            close = difflib.get_close_matches(name, registry(), n=3, cutoff=0.3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UnknownCaseError(f"no case is named {name!r}{hint} (--list shows all)")
        chosen |= found
    return [case for case in registry().values() if case.name in chosen]
