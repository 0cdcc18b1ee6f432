"""How convolutions, times and tables are printed."""

import difflib
from collections.abc import Iterable, Sequence

from jaxconv._spec import Problem


def describe(problem: Problem) -> list[str]:
    """Return two lines that say what a convolution is."""
    spec = problem.spec
    options = [f"method {spec.method!r}"]
    steps = {name: getattr(spec, name) for name in ("strides", "lhs_dilation", "rhs_dilation")}
    options += [f"{name} {values}" for name, values in steps.items() if any(value != 1 for value in values)]
    if any(any(pair) for pair in spec.padding):
        options.append(f"padding {spec.padding}")
    if not problem.held_canonically:
        x, w, y = (
            _axes(names, order, problem) for names, order in zip(("gnc", "goc", "gno"), spec.orders, strict=True)
        )
        options.append(f"held as {x}, {w} -> {y}")
    return [
        f"{spec.convention} of {problem.dtype}: x {problem.x_shape}, w {problem.w_shape} -> {problem.y_shape}",
        f"  {', '.join(options)}; {problem.multiply_adds:.2e} multiply-adds by the definition",
    ]


def _axes(names: str, order: Sequence[int], problem: Problem) -> str:
    """Return the order of an array's axes: letters, and numbers for the spatial ones; groups only if there are any."""
    axes = (axis for axis in order if axis or problem.groups != 1)
    return "".join(names[axis] if axis < 3 else str(axis - 3) for axis in axes)


def algorithm_name(name: str, inner: str | None) -> str:
    """Return the name of an algorithm and, if it only rearranges, of the one that computes inside."""
    return f"{name} ({inner})" if inner else name


def table(header: Sequence[str], rows: Sequence[Sequence[str]], chosen: str, notes: Sequence[str]) -> list[str]:
    """Return the lines of a table of algorithms: the chosen one is marked, and a note follows each row."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row, note in zip((header, *rows), ("", *notes), strict=True):
        mark = "*" if row[0] == chosen else " "
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"   {mark} {'  '.join(cells)}{f'   {note}' if note else ''}".rstrip())
    return lines


def perhaps(name: str, known: Iterable[str]) -> str:
    """Return how a message about an unknown name ends: with the known one that it resembles most, if any."""
    similar = {other.lower(): other for other in known}
    nearest = difflib.get_close_matches(name.lower(), similar, 1)
    return f", perhaps {similar[nearest[0]]!r}" if nearest else ""


def duration(seconds: float) -> str:
    """Return a time with its unit."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        # From what would be printed as a thousand of the next smaller one.
        if seconds >= 0.9995 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-6:.3g} us"
