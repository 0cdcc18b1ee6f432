"""`jaxconv.autotune`: measure the candidates for every convolution of a function, and remember the winners."""

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxconv import _measure, _store
from jaxconv._algorithms import REGISTRY
from jaxconv._dtypes import is_inexact
from jaxconv._plan import as_measured, with_choices_of
from jaxconv._report import convolutions
from jaxconv._simplify import simplify
from jaxconv._spec import Problem
from jaxconv._text import describe, duration
from jaxconv._tuning import Measurement, Setting, Tuning, tuned


def autotune(
    fn: Callable[..., Any],
    *args: Any,
    gradients: bool = True,
    budget: float = 60.0,
    path: str | os.PathLike[str] | None = None,
    device: Any = None,
    verbose: bool = False,
) -> Tuning:
    """Measure which algorithm is the fastest for every convolution of a function, and remember the winners.

    The function is traced, not run. Each convolution in it is then timed on random operands of its shapes, once by each
    algorithm that its method admits (``"direct"`` keeps its promise) and that is not out of the question. What was
    measured before, by any process on such a device with the same versions, is read from a file instead.

    Nothing changes until the table that is returned is put in force by `jaxconv.tuned`.

    Parameters
    ----------
    fn
        A function that calls jaxconv, transformed in any way (`jax.grad`, `jax.vmap`, `jax.jit`, ...).
    *args
        The function's arguments: arrays, `jax.ShapeDtypeStruct` or trees of those.
    gradients
        Whether to measure the gradients of each convolution too, which its pullback will need. A training step
        contains its gradients already: pass False.
    budget
        Seconds after which no further convolution is measured. Those for which no time was left are not in the table,
        so that the planner's model decides; the next call measures them. With 0 nothing is measured, and the table is
        what is remembered.
    path
        The file that remembers. By default that in the environment variable ``JAXCONV_TUNING_FILE`` if it is set,
        otherwise ``jaxconv/tuning.json`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``;
        ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows). It is JSON, one line for each convolution, and
        can be deleted at any time.
    device
        The `jax.Device` on which to measure: the default one if None.
    verbose
        Whether to print a line for each convolution, to standard error.

    Returns
    -------
    Tuning
        The winners: immutable, hashable, and printed as a table of modelled and measured times.

    Raises
    ------
    TypeError
        If the function is not callable.
    ValueError
        If the budget is negative or no number.
    RuntimeError
        If it is called inside of a function that JAX is tracing, where nothing can be measured.

    Warns
    -----
    UserWarning
        If the file cannot be read or written. It is ignored then, and replaced or left alone.

    Notes
    -----
    In a program of several processes (`jax.distributed`) each must call this at the same point: the first one measures,
    on a device of its own, and its table is broadcast, so that all compile the same program.

    Convolutions whose method names an algorithm that can run them, empty ones and those with symbolic dimensions are
    passed over, since there is nothing to choose. An algorithm is not tried if the model takes it to be more than 20
    times slower than its own favourite (on a platform without measured constants: to do more than 100 times the
    operations), or if it would hold more memory than the planner allows; and it is not taken if it compiles for more
    than 10 seconds.

    See Also
    --------
    jaxconv.tuned : Put the table in force.
    jaxconv.plan : Show which algorithm is chosen, and whether that was measured.

    Examples
    --------
    >>> import jax, jaxconv, tempfile
    >>> def smooth(x, w):
    ...     return jaxconv.signal.convolve(x, w, mode="same")
    >>> x, w = jax.numpy.ones(500), jax.numpy.ones(3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = jaxconv.autotune(smooth, x, w, gradients=False, path=f"{folder}/tuning.json")
    >>> len(table)
    1
    >>> with jaxconv.tuned(table):
    ...     report = jaxconv.plan(smooth, x, w)
    >>> report[0].forward.source
    'measured'
    """
    if not callable(fn):
        raise TypeError(f"jaxconv.autotune takes a function and its arguments, got {fn!r}")
    if not (isinstance(budget, (int, float, np.number)) and budget >= 0):
        raise ValueError(f"budget must be a number of seconds, at least 0, got {budget!r}")
    probe = jax.device_put(np.zeros(()))
    if isinstance(probe, Tracer):
        raise RuntimeError(
            "jaxconv.autotune was called while JAX traces a function, where nothing can be measured: call it before, "
            "with the function's arguments or their shapes (jax.ShapeDtypeStruct)"
        )
    (default,) = probe.devices()
    device = default if device is None else device
    path = _store.default_path() if path is None else Path(path)
    with tuned(None):
        found = convolutions(fn, *args)
    if jax.process_count() == 1:
        return _tune(found, gradients, budget, path, device, verbose)
    tuning = Tuning()
    try:
        if jax.process_index() == 0:
            tuning = _tune(found, gradients, budget, path, device, verbose)
    finally:  # the others wait for it, whatever happens
        tuning = _broadcast(tuning)
    return tuning


def _tune(found: list[Problem], gradients: bool, budget: float, path: Path, device: Any, verbose: bool) -> Tuning:
    """Measure what the file does not know."""
    start = time.perf_counter()
    setting = setting_of(device)
    remembered = Tuning(_store.load(path, setting))
    wanted = list(dict.fromkeys(_problems(found, gradients)))
    known = {problem: m for problem in wanted if (m := remembered.find(setting.platform, problem))}
    missing = [problem for problem in wanted if problem not in known]
    if verbose:
        _print(f"jaxconv.autotune: {len(known)} of {len(wanted)} convolutions are remembered in {path}")
    tuning = Tuning(known.values())
    # `set_mesh` takes precedence over meshes and default devices that the caller has set.
    with jax.set_mesh(Mesh(np.array([device]), ("device",), axis_types=(jax.sharding.AxisType.Auto,))):
        for number, problem in enumerate(missing):
            if time.perf_counter() - start >= budget:
                if verbose:
                    _print(f"the time is up: {len(missing) - number} convolutions are left to the model")
                break
            measurement = _measure.measure(problem, setting, tuning)
            if measurement is None:
                continue
            tuning |= Tuning([measurement])
            _store.save(path, [measurement])
            if verbose:
                _print(f"{number + 1}/{len(missing)} {describe(problem)[0]}: {_outcome(measurement)}")
    return tuning


def _problems(found: list[Problem], gradients: bool) -> Iterator[Problem]:
    """Yield the problems to measure: those that remain inside of an algorithm before those that may run it."""
    whole = list(found)
    if gradients:
        for problem in found:
            if is_inexact(problem.dtype):
                whole += [problem.input_gradient(), problem.kernel_gradient()]
    for problem in whole:
        if problem.static and not problem.empty:
            yield from _with_inner(simplify(problem)[0])


def _with_inner(problem: Problem) -> Iterator[Problem]:
    method = problem.spec.forward_method
    if problem.empty or (method in REGISTRY and REGISTRY[method].supports(problem) is None):
        return
    problem = as_measured(problem)
    for algorithm in REGISTRY.values():
        if algorithm.inner is not None and algorithm.supports(problem) is None:
            yield from _with_inner(simplify(with_choices_of(problem, algorithm.inner(problem)))[0])
    yield problem


def _outcome(measurement: Measurement) -> str:
    winner = next(t for t in measurement.timings if t.algorithm == measurement.chosen)
    return f"{winner.algorithm}, {duration(winner.measured or 0.0)}"


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")


def setting_of(device: Any) -> Setting:
    """Return what a winner depends on."""
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"{_processor()}, {_cores()} cores"
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "jaxconv")]
    return Setting(_platform(device), kind, *versions)


def _platform(device: Any) -> str:
    """Return the platform for which convolutions on the device are lowered."""
    if device.platform == "gpu":
        return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"
    return device.platform if device.platform in ("cuda", "rocm", "tpu") else "cpu"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _broadcast(tuning: Tuning) -> Tuning:
    """Return the first process's table, on every process."""
    content = json.dumps([_store.encode(measurement) for measurement in tuning]).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(content))))
    padded = np.frombuffer(content[:length].ljust(length), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    return Tuning(map(_store.decode, json.loads(received.tobytes())))
