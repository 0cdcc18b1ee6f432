"""The file that remembers measured winners.

JSON, one line for each setting (device and versions) and convolution, readable and safe to delete. It is a cache:
whatever is wrong with it is reported by a warning, and costs no more than measuring again. Several processes may write
at once: each merges what it has measured with what it finds, under a lock, and replaces the file in one step.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax import lax

from jaxconv._spec import ConvSpec, Problem
from jaxconv._tuning import Measurement, Setting, Timing

try:
    import fcntl
except ImportError:  # Windows: without a lock, a winner of two simultaneous writers may be lost, and measured again
    fcntl = None

ENVIRONMENT_VARIABLE = "JAXCONV_TUNING_FILE"
FORMAT = 2
_STALE = f"delete it, or name another one by the argument path or in the environment variable {ENVIRONMENT_VARIABLE}"


def default_path() -> Path:
    """Return the file of the environment variable, or else that in the user's cache folder."""
    if given := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(given).expanduser()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    elif sys.platform == "darwin":
        folder = Path("~/Library/Caches")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return folder.expanduser() / "jaxconv" / "tuning.json"


def load(path: Path, setting: Setting) -> list[Measurement]:
    """Return what was measured in a setting; a file that cannot be read is reported by a warning."""
    wanted, found = dataclasses.asdict(setting), []
    for entry in _read(path):
        if not isinstance(entry, dict) or entry.get("setting") != wanted:
            continue
        try:
            found.append(decode(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _warn(f"ignoring an entry of {path} that is none ({type(error).__name__}: {error}): {_STALE}")
    return found


def save(path: Path, measurements: Iterable[Measurement]) -> None:
    """Add measurements to the file; one that cannot be written is reported by a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries = {_identity(entry): entry for entry in _read(path, quiet=True) if isinstance(entry, dict)}
            entries |= {_identity(entry): entry for entry in map(encode, measurements)}
            _replace(path, _text(list(entries.values())))
    except OSError as error:
        _warn(f"measured winners could not be remembered in {path} ({error}): they hold for this process only")


def encode(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as what JSON holds."""
    problem = measurement.problem
    spec = {f.name: getattr(problem.spec, f.name) for f in dataclasses.fields(ConvSpec) if f.name != "tuning"}
    precision = problem.spec.precision
    spec["precision"] = None if precision is None else [p.name for p in precision]
    spec["out_dtype"] = np.dtype(spec["out_dtype"]).name
    entry = {
        "setting": dataclasses.asdict(measurement.setting),
        "x": problem.x_shape,
        "w": problem.w_shape,
        "dtype": problem.dtype.name,
        "spec": spec,
        "chosen": measurement.chosen,
        "timings": [dataclasses.asdict(timing) for timing in measurement.timings],
    }
    return json.loads(json.dumps(entry))


def decode(entry: dict[str, Any]) -> Measurement:
    """Return the measurement that was encoded.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        If it is none.
    """
    spec = dict(entry["spec"])
    for name in ("strides", "lhs_dilation", "rhs_dilation"):
        spec[name] = tuple(map(int, spec[name]))
    if spec["held"] is not None:
        spec["held"] = tuple(tuple(map(int, order)) for order in spec["held"])
    spec["padding"] = tuple((int(low), int(high)) for low, high in spec["padding"])
    if spec["precision"] is not None:
        spec["precision"] = tuple(lax.Precision[name] for name in spec["precision"])
    spec["out_dtype"] = np.dtype(spec["out_dtype"])
    x_shape, w_shape = (tuple(map(int, entry[name])) for name in ("x", "w"))
    return Measurement(
        Setting(**entry["setting"]),
        Problem.of(x_shape, w_shape, entry["dtype"], ConvSpec(**spec)),
        str(entry["chosen"]),
        tuple(Timing(**timing) for timing in entry["timings"]),
    )


def _read(path: Path, *, quiet: bool = False) -> list[Any]:
    """Return the entries of the file, if it is there and one of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        return list(content["measurements"])
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not quiet:
            _warn(f"ignoring {path}, which cannot be read ({type(error).__name__}: {error}): {_STALE}")
        return []


def _text(entries: list[dict[str, Any]]) -> str:
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    return f'{{"format": {FORMAT}, "measurements": [\n{lines}\n]}}\n'


def _identity(entry: dict[str, Any]) -> str:
    """Return what tells one entry from another: all but what was found."""
    return json.dumps({k: v for k, v in entry.items() if k not in ("chosen", "timings")}, sort_keys=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that stands beside the file, since the file itself is replaced."""
    with path.with_name(path.name + ".lock").open("a") as lock:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, text: str) -> None:
    """Replace the file in one step, so that nobody ever reads half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
