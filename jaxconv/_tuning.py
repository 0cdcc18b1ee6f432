"""Measured winners: what was measured, the table of it that travels in a specification, and the scope of a table."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import jax

from jaxconv._spec import Problem
from jaxconv._text import algorithm_name, describe, duration, table

_HEADER = ("algorithm", "modelled", "measured")


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where and with what something was measured; a winner counts only where all of it is the same.

    Attributes
    ----------
    platform
        ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``.
    device
        The kind of the device; for a CPU also which one it is, and how many cores were usable.
    jax, jaxlib, jaxconv
        Versions.
    """

    platform: str
    device: str
    jax: str
    jaxlib: str
    jaxconv: str

    def __str__(self) -> str:
        return f"{self.platform}: {self.device}; jax {self.jax}, jaxlib {self.jaxlib}, jaxconv {self.jaxconv}"


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was found out about one algorithm for one convolution.

    Attributes
    ----------
    algorithm
        Its name.
    inner
        The algorithm that it runs inside, if it is one that only rearranges operands and result.
    modelled
        Seconds by the planner's model.
    measured
        The median of the measured seconds; None if it was not measured.
    note
        Why it was not measured, or not taken; empty for the winner.
    """

    algorithm: str
    inner: str | None
    modelled: float
    measured: float | None
    note: str


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The winner for one convolution, and the candidates' times.

    Attributes
    ----------
    setting
        Where it was measured.
    problem
        The convolution as an algorithm sees it: of `jaxconv._simplify.simplify`, with the promise of its method.
    chosen
        The name of the winner.
    timings
        All candidates that can run the problem and that the method admits.
    """

    setting: Setting
    problem: Problem
    chosen: str
    timings: tuple[Timing, ...]

    def __repr__(self) -> str:
        rows, notes, marked = [], [], ""
        for timing in self.timings:
            name = algorithm_name(timing.algorithm, timing.inner)
            measured = "-" if timing.measured is None else duration(timing.measured)
            rows.append((name, duration(timing.modelled), measured))
            notes.append(timing.note)
            marked = name if timing.algorithm == self.chosen else marked
        return "\n".join([*describe(self.problem), *table(_HEADER, rows, marked, notes)])


class Tuning:
    """An immutable, hashable table of the fastest algorithms, as measured: what `jaxconv.autotune` returns.

    It changes nothing by itself: `jaxconv.tuned` says where it is in force. Printing it shows the modelled and the
    measured time of every candidate; iterating over it gives one measurement for each convolution. ``a | b`` is the
    union of two tables, in which ``b`` wins where both have measured the same convolution. It can be pickled.

    Examples
    --------
    >>> import jaxconv
    >>> jaxconv.Tuning()
    nothing was measured
    """

    __slots__ = ("_found", "_hash")

    def __init__(self, measurements: Iterable[Measurement] = ()):
        self._found = {(m.setting.platform, m.problem): m for m in measurements}
        # Once, since `jax.jit` hashes the table in force in every call.
        self._hash = hash(frozenset(self._found.values()))

    def find(self, platform: str, problem: Problem) -> Measurement | None:
        """Return what was measured for a simplified problem that bears the promise of its method, if anything."""
        return self._found.get((platform, problem))

    def __or__(self, other: "Tuning") -> "Tuning":
        if not isinstance(other, Tuning):
            return NotImplemented
        return Tuning((*self, *other))

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Tuning):
            return NotImplemented
        return self._hash == other._hash and self._found == other._found

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple:
        return Tuning, (tuple(self),)

    def __repr__(self) -> str:
        if not self._found:
            return "nothing was measured"
        blocks = []
        for setting in dict.fromkeys(m.setting for m in self):
            measured = [m for m in self if m.setting == setting]
            count = "1 convolution" if len(measured) == 1 else f"{len(measured)} convolutions"
            blocks += [f"{count} measured on {setting}", *map(repr, measured)]
        return "\n\n".join(blocks)


# Part of the key of jit's caches, so that no function that was compiled under one table runs under another.
_in_force = jax.make_user_context(None)


def in_force() -> Tuning | None:
    """Return the table in whose scope this is called."""
    return _in_force.value


def tuned(tuning: Tuning | None) -> contextlib.AbstractContextManager[None]:
    """Put measured winners in force: for a block of code, or for every call of a function.

    Every convolution that is called or traced in the scope takes the algorithm that was measured to be the fastest,
    where the table has one for it; elsewhere the planner's model decides, as without a table. A convolution keeps its
    table: gradients that are taken later, outside of the scope, use it too.

    The table in force is part of the key of `jax.jit`'s caches: what was compiled without it is compiled anew in its
    scope, and used again after it.

    Parameters
    ----------
    tuning
        The table; None for no table, within the scope of another.

    Returns
    -------
    context manager
        To be used in a ``with`` statement, or as a decorator. Decorate the function that you give to `jax.jit`, not the
        result, so that the latter's methods stay at hand: ``jax.jit(jaxconv.tuned(table)(step))``.

    Raises
    ------
    TypeError
        If it is no table.

    See Also
    --------
    jaxconv.autotune : Measure, and return a table.
    jaxconv.plan : Show which algorithm is chosen, and whether that was measured.

    Examples
    --------
    >>> import jaxconv
    >>> table = jaxconv.Tuning()
    >>> with jaxconv.tuned(table):
    ...     jaxconv.signal.convolve([1.0, 2.0], [1.0, 1.0])
    Array([1., 3., 2.], dtype=float32)

    >>> @jaxconv.tuned(table)
    ... def smooth(x):
    ...     return jaxconv.signal.convolve(x, [0.5, 0.5], mode="valid")
    >>> smooth([1.0, 2.0, 4.0])
    Array([1.5, 3. ], dtype=float32)
    """
    if not (tuning is None or isinstance(tuning, Tuning)):
        raise TypeError(
            f"expected a jaxconv.Tuning, as jaxconv.autotune(function, *arguments) returns it, or None, got {tuning!r}"
        )
    return _scope(tuning)


@contextlib.contextmanager
def _scope(tuning: Tuning | None) -> Iterator[None]:
    with _in_force(tuning):
        yield
