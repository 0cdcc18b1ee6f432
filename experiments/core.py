"""The vocabulary that all experiments share: claims, figures, tables, outcomes, and the context of a run."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity where a number was due; the run stops, for nothing that follows could be trusted."""


def require_finite(what: str, tree: Any) -> None:
    """Raise `NonFiniteError` if an array of a pytree holds a NaN or an infinity, and say which array, and where."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jax.numpy.issubdtype(leaf.dtype, np.inexact):
            continue
        wrong = np.argwhere(~np.isfinite(np.asarray(leaf)))
        if len(wrong):
            first = tuple(map(int, wrong[0]))
            raise NonFiniteError(
                f"{what}{jax.tree_util.keystr(path)}: {len(wrong)} of {leaf.size} values are not finite, "
                f"the first of them, {np.asarray(leaf)[first]}, at {first}"
            )


def usable_devices() -> list[Any]:
    """Return the devices that a run may use: the one that was asked for, or else all of the platform."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return [chosen] if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)


def extreme(values: np.ndarray, *labels: Sequence[str], smallest: bool = False) -> tuple[float, str]:
    """Return the largest entry (or the smallest) and where it stands, in words; one sequence of labels per axis."""
    if not np.isfinite(values).all():
        raise NonFiniteError(
            f"{np.size(values) - np.isfinite(values).sum()} of {np.size(values)} values are not finite"
        )
    index = np.unravel_index(np.argmin(values) if smallest else np.argmax(values), values.shape)
    return float(values[index]), ", ".join(names[int(i)] for names, i in zip(labels, index, strict=True))


@dataclass(frozen=True)
class Claim:
    """A sentence that one measured number decides.

    `measured` is always the least favourable of all the cases that the statement speaks of; `detail` says which case
    that was. A `control` is a claim that would fail if the experiment could not tell the two outcomes apart.
    """

    name: str
    statement: str
    measured: float
    comparison: str
    threshold: float
    detail: str = ""
    control: bool = False

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            known = ", ".join(COMPARISONS)
            raise ValueError(f"claim {self.name!r}: unknown comparison {self.comparison!r}; use one of {known}")
        for field_name in ("measured", "threshold"):
            # Plain floats, so that the results are JSON whatever array type was measured.
            object.__setattr__(self, field_name, float(getattr(self, field_name)))
            if not math.isfinite(getattr(self, field_name)):
                raise NonFiniteError(f"claim {self.name!r}: the {field_name} value is {getattr(self, field_name)}")

    @classmethod
    def worst(
        cls,
        name: str,
        statement: str,
        values: np.ndarray,
        axes: Sequence[Sequence[str]],
        comparison: str,
        threshold: float,
        *,
        control: bool = False,
    ) -> Claim:
        """Claim something of all entries of an array whose axes have labels; the least favourable one decides."""
        smallest = comparison.startswith(">")
        measured, where = extreme(values, *axes, smallest=smallest)
        detail = f"{'Smallest' if smallest else 'Largest'}: {where}." if np.ptp(values) else "The same everywhere."
        return cls(name, statement, measured, comparison, threshold, detail, control)

    @property
    def holds(self) -> bool:
        return COMPARISONS[self.comparison](self.measured, self.threshold)


def slug(name: str) -> str:
    """Return a name fit for files and ids: 'Gabor, phase π/4' becomes 'gabor-phase-4'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Panel:
    """One drawing. `svg` is a complete SVG document; `alt` says in words what it shows; `name` becomes a file's."""

    name: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Figure:
    """Panels that share a title and a caption. `width` is a panel's natural one; a narrow screen stacks them."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    width: int = 340


@dataclass(frozen=True)
class Table:
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """What an experiment hands to the report.

    `answer` is the sentence that stands in the summary when all claims hold, `highlights` are its (number, meaning)
    pairs, `emblem` is the drawing beside them.
    """

    answer: str
    method: str
    claims: tuple[Claim, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    highlights: tuple[tuple[str, str], ...] = ()
    emblem: Panel | None = None

    def __post_init__(self) -> None:
        names = [claim.name for claim in self.claims]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names of claims must be unique, and these are not: {', '.join(repeated)}")


@dataclass(frozen=True)
class Context:
    """The settings of a run, as every experiment sees them."""

    seed: int = 0
    quick: bool = False
    x64: bool = False
    show_progress: bool = field(default=True, compare=False)

    @property
    def dtype(self) -> type[np.floating]:
        """The precision of whatever does not choose its own."""
        return np.float64 if self.x64 else np.float32

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a generator that depends on the seed and on `stream`, so that one use does not shift another."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=stream))

    def progress(self, total: int, name: str) -> tqdm:
        """Return a progress bar of `total` compiled pieces of work, to be used in a `with` statement."""
        return tqdm(total=total, desc=name, unit="run", disable=not self.show_progress, dynamic_ncols=True)
