"""SciPy's ways to convolve, and to compute the gradients, which are convolutions with a flipped array themselves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage, signal

from experiments.speed.operations import Direction, Signal, multiply_adds, operand_names, section
from experiments.speed.peers import Way

Convolve = Callable[..., np.ndarray]


def ways(operation: Signal, direction: Direction) -> list[Way]:
    """Return what SciPy offers for an operation; nothing for gradients of batches and of periodic arrays."""
    if operation.boundary != "fill":
        return _periodic(operation) if direction == "forward" else []
    if operation.batch is not None:
        return _batched(operation) if direction == "forward" else []
    found: dict[str, Convolve] = {"signal.convolve": signal.convolve, "signal.oaconvolve": signal.oaconvolve}
    if direction == "forward":
        fns = {name: functools.partial(fn, mode=operation.mode) for name, fn in found.items()}
    else:
        fns = {name: _gradient(fn, operation, direction) for name, fn in found.items()}
    result = [_way(operation, direction, name, fn) for name, fn in fns.items()]
    count = multiply_adds(operation)
    if direction == "forward" and operation.mode == "same" and all(m % 2 for m in operation.in2):
        axes = [axis for axis, m in enumerate(operation.in2) if m > 1]
        if len(axes) == 1 and len(operation.in2) > 1:

            def along(x: np.ndarray, w: np.ndarray) -> np.ndarray:
                return ndimage.convolve1d(x, w.ravel(), axes[0], mode="constant")

            result.append(_way(operation, direction, "ndimage.convolve1d", along, count))
        else:
            fn = functools.partial(ndimage.convolve, mode="constant")
            result.append(_way(operation, direction, "ndimage.convolve", fn, count))
    if direction == "forward" and len(operation.in1) == 2:
        fn = functools.partial(signal.convolve2d, mode=operation.mode)
        result.append(_way(operation, direction, "signal.convolve2d", fn, count))
    return result


def _way(
    operation: Signal, direction: Direction, name: str, fn: Callable[[Any, Any], Any], multiply_adds: int = 0
) -> Way:
    *_, result = operand_names(direction)

    def read(value: Any) -> np.ndarray:
        return operation.canonical(result, value)

    return Way("scipy", name, fn, lambda first, second: (first, second), read, multiply_adds=multiply_adds)


def _gradient(convolve: Convolve, operation: Signal, direction: Direction) -> Callable[[Any, Any], np.ndarray]:
    """Return the function for a gradient.

    Where y[m] = sum_k x[m + a - k] w[k] (a: where the mode starts), the gradients are the sections ::

        dx = (ct * flip(w))[M - 1 - a :][:N]        dw = (ct * flip(x))[N - 1 - a :][:M]

    of full convolutions, N and M being the lengths of x and w. If a mode of SciPy returns just that, it is called; else
    (for "same") the longer array is padded so that "valid" returns it, as a direct method would sum no more then.
    """
    # Of each axis: the lengths of the cotangent, of the other operand and of the result; where that starts.
    axes = [
        (length, m, n, m - 1 - start) if direction == "input" else (length, n, m, n - 1 - start)
        for n, m, (start, length) in zip(operation.in1, operation.in2, operation.sections, strict=True)
    ]
    fitting = [
        mode
        for mode in ("valid", "same", "full")
        if all(section(mode, length, other) == (start, size) for length, other, size, start in axes)
    ]
    if fitting:
        mode = fitting[0]

        def gradient(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            ct, other = (first, second) if direction == "input" else (second, first)
            return convolve(ct, np.flip(other), mode=mode)

        return gradient
    # Padding the longer one by `low` moves the section to start + low, where "valid" starts at the shorter length - 1.
    pads = []
    for length, other, size, start in axes:
        low = min(length, other) - 1 - start
        pads.append((low, min(length, other) - 1 + size - max(length, other) - low))
    if any(min(pair) < 0 for pair in pads):
        raise ValueError(f"no mode of SciPy returns the gradient of {operation}")

    def padded(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        ct, other = (first, second) if direction == "input" else (second, first)
        other = np.flip(other)
        long, short = (ct, other) if math.prod(ct.shape) >= math.prod(other.shape) else (other, ct)
        return convolve(np.pad(long, pads), short, mode="valid")

    return padded


def _batched(operation: Signal) -> list[Way]:
    axes = tuple(range(1, len(operation.in1) + 1))

    def way(name: str, fn: Convolve) -> Way:
        return _way(operation, "forward", name, lambda x, w: fn(x, w[None], mode=operation.mode, axes=axes))

    return [way("signal.fftconvolve", signal.fftconvolve), way("signal.oaconvolve", signal.oaconvolve)]


def _periodic(operation: Signal) -> list[Way]:
    count = multiply_adds(operation)
    found = []
    if len(operation.in1) == 2:
        fn = functools.partial(signal.convolve2d, mode=operation.mode, boundary="wrap")
        found.append(_way(operation, "forward", "signal.convolve2d", fn, count))
    if operation.mode == "same" and all(m % 2 for m in operation.in2):
        fn = functools.partial(ndimage.convolve, mode="wrap")
        found.append(_way(operation, "forward", "ndimage.convolve", fn, count))
    return found
