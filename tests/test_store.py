"""The file that remembers measured winners: what it keeps apart, what it survives, and several processes at once."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxconv
from jaxconv import _autotune, _measure, _store
from jaxconv._simplify import simplify
from jaxconv._spec import held_by_layers
from jaxconv._tuning import Measurement, Setting, Timing, Tuning

from .cases import BY_NAME, CASES
from .methods import problem

SETTING = Setting("cpu", "abacus", "1", "2", "3")
X, W = jnp.ones(40), jnp.ones(5)
CHANNELS = BY_NAME["1d-channels"]


def measurement(case=CASES[0], dtype="float32", chosen="shift", setting=SETTING, **spec):
    whole = problem(case, dtype)
    simple, _ = simplify(dataclasses.replace(whole, spec=dataclasses.replace(whole.spec, **spec)))
    timings = (Timing("shift", None, 1e-3, 2e-3, ""), Timing("planes", "fft", 3e-3, None, "too heavy"))
    return Measurement(setting, simple, chosen, timings)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "tuning.json"


@pytest.fixture
def measured(monkeypatch):
    """Make times up, and record the problems for which that is done."""
    problems = []

    def measure(problem, setting, tuning):
        problems.append(problem)
        return Measurement(setting, problem, "shift", (Timing("shift", None, 1e-3, 2e-3, ""),))

    monkeypatch.setattr(_measure, "measure", measure)
    return problems


def tune(path=None, **options):
    return jaxconv.autotune(jaxconv.signal.convolve, X, W, path=path, **options)


# --- what is written and read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if not case.vanishes], ids=str)
def test_round_trip(case, path):
    saved = [
        measurement(case),
        measurement(case, "bfloat16", precision=(lax.Precision.HIGHEST, lax.Precision.DEFAULT)),
        measurement(
            case,
            "complex64",
            convention="convolution",
            held=held_by_layers(len(case.space), channels_last=True),
            method="direct",
        ),
    ]
    _store.save(path, saved)
    assert _store.load(path, SETTING) == saved


def test_what_is_known_is_not_measured_again(measured, path):
    first = tune(path)
    assert len(measured) == 3
    assert tune(str(path)) == first
    assert tune(path, gradients=False) == Tuning(list(first)[:1])
    assert len(measured) == 3
    jaxconv.autotune(jaxconv.signal.correlate, X, W, path=path)
    assert len(measured) > 3
    assert len(tune(path, budget=0)) == 3


def test_keys(path):
    """Each device, version, shape, dtype and specification has an entry of its own; a repeated one is replaced."""
    entries = [measurement(), measurement(chosen="fft"), measurement(dtype="float64"), measurement(CASES[1])]
    entries += [
        measurement(method="direct"),
        measurement(CHANNELS, held=held_by_layers(len(CHANNELS.space), channels_last=True)),
        measurement(convention="convolution"),
    ]
    others = [dataclasses.replace(SETTING, **{field.name: "other"}) for field in dataclasses.fields(SETTING)]
    _store.save(path, entries)
    _store.save(path, [measurement(setting=other) for other in others])
    assert _store.load(path, SETTING) == entries[1:]
    for other in others:
        assert _store.load(path, other) == [measurement(setting=other)]


def test_versions_count(measured, monkeypatch, path):
    tune(path)
    version = importlib.metadata.version
    monkeypatch.setattr(
        _autotune.importlib.metadata, "version", lambda name: "99" if name == "jaxlib" else version(name)
    )
    tune(path)
    assert len(measured) == 6
    assert len(json.loads(path.read_text())["measurements"]) == 6


def test_setting_of_this_device():
    setting = _autotune.setting_of(jax.devices()[0])
    assert (setting.jax, setting.jaxconv) == (jax.__version__, jaxconv.__version__)
    assert setting.platform == "cpu"
    assert setting.device.endswith(" cores")
    assert len(setting.device) > len("2 cores")


@pytest.mark.parametrize(
    ("platform", "version", "expected"),
    [
        ("gpu", "PJRT C API\ncuda 12090", "cuda"),
        ("gpu", "PJRT C API\nrocm 60300", "rocm"),
        ("tpu", "libtpu", "tpu"),
        ("cpu", "cpu", "cpu"),
        ("abacus", "1", "cpu"),
    ],
)
def test_platform_of_a_device(platform, version, expected):
    """As the lowering rules are registered; unknown platforms have the default one."""

    client = SimpleNamespace(platform_version=version)
    device = SimpleNamespace(platform=platform, device_kind="abacus mark II", client=client)
    setting = _autotune.setting_of(device)
    assert setting.platform == expected
    if platform != "cpu":
        assert setting.device == "abacus mark II"


# --- where it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "HOME/.cache/jaxconv/tuning.json"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/jaxconv/tuning.json"),
        ("darwin", {"XDG_CACHE_HOME": "/cache"}, "HOME/Library/Caches/jaxconv/tuning.json"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/jaxconv/tuning.json"),
        ("win32", {}, "HOME/AppData/Local/jaxconv/tuning.json"),
        ("linux", {"JAXCONV_TUNING_FILE": "~/mine.json", "XDG_CACHE_HOME": "/cache"}, "HOME/mine.json"),
    ],
)
def test_default_path(monkeypatch, tmp_path, platform, environment, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "JAXCONV_TUNING_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": str(tmp_path)} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_store.sys, "platform", platform)
    assert _store.default_path() == Path(expected.replace("HOME", str(tmp_path)))


def test_environment_variable_and_argument(measured, monkeypatch, tmp_path, path):
    monkeypatch.setenv("JAXCONV_TUNING_FILE", str(tmp_path / "named.json"))
    tune()
    assert (tmp_path / "named.json").is_file()
    tune(path)
    assert path.is_file()
    assert len(measured) == 6


# --- what it survives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"format": 2}',
        b'{"format": 1, "measurements": []}',
        b'{"format": 2, "measurements": 3}',
    ],
)
def test_corrupt_file_is_reported_ignored_and_replaced(measured, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"ignoring .*tuning\.json.*delete it.*JAXCONV_TUNING_FILE"):
        assert len(tune(path)) == 3
    assert len(tune(path, budget=0)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.pop("x"),
        lambda entry: entry.pop("timings"),
        lambda entry: entry.update(x=["a"]),
        lambda entry: entry.update(dtype="float33"),
        lambda entry: entry["spec"].pop("padding"),
        lambda entry: entry["spec"].update(padding=[1]),
        lambda entry: entry["spec"].update(more=1),
        lambda entry: entry["spec"].update(precision=["SOME", "MORE"]),
        lambda entry: entry.update(timings=[{"algorithm": "shift"}]),
        lambda entry: entry.update(spec=None),
    ],
)
def test_damaged_entry_is_reported_and_ignored(measured, path, damage):
    tune(path)
    content = json.loads(path.read_text())
    damage(content["measurements"][0])
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"ignoring an entry of .*tuning\.json"):
        assert len(tune(path)) == 3
    assert len(measured) == 4


def test_unwritable_file_is_reported(measured, tmp_path):
    """The table holds for this process all the same. (Not by permissions, which do not bind root.)"""
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"could not be remembered in .*for this process only"):
        assert len(tune(tmp_path / "file" / "tuning.json")) == 3
    with pytest.warns(UserWarning, match=r"ignoring|could not be remembered"):
        assert len(tune(tmp_path)) == 3


def test_no_lock_is_no_obstacle(measured, monkeypatch, path):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(_store.fcntl, "flock", refuse)
    tune(path)
    monkeypatch.setattr(_store, "fcntl", None)
    assert len(tune(path, budget=0)) == 3
    jaxconv.autotune(jaxconv.signal.correlate, X, W, path=path)
    assert len(tune(path, budget=0)) == 3


def test_interrupted_write_leaves_the_file(measured, monkeypatch, path):
    tune(path)
    before = path.read_text()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_store.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        _store.save(path, [measurement()])
    assert path.read_text() == before
    assert {file.name for file in path.parent.iterdir()} == {"tuning.json", "tuning.json.lock"}


# --- several processes ------------------------------------------------------------------------------------------------

PROCESS = """
import sys
address, index, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
import jax
jax.distributed.initialize(address, 2, index)
import jaxconv
from jaxconv import _measure, _store
from jaxconv._tuning import Measurement, Setting
from tests.test_store import X, W, measurement

for number in range(20):
    setting = Setting("cpu", f"abacus {index}.{number}", "1", "2", "3")
    _store.save(_store.Path(path), [measurement(setting=setting)])

def measure(problem, setting, tuning):
    return Measurement(setting, problem, ("shift", "xla")[index], ())

_measure.measure = measure
table = jaxconv.autotune(jaxconv.signal.convolve, X, W, path=path)
with jaxconv.tuned(table):
    (plan,) = jaxconv.plan(jaxconv.signal.convolve, X, W)
print("chosen:", plan.forward.chosen, plan.kernel_gradient.chosen, plan.forward.source)
"""


def test_two_processes(path):
    """Of one distributed program: both write at once and nothing is lost; both get the first one's winners."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    root = Path(__file__).parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(index), str(path)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
        assert "chosen: shift shift measured" in output
    entries = json.loads(path.read_text())["measurements"]
    devices = {entry["setting"]["device"] for entry in entries}
    assert {f"abacus {index}.{number}" for index in range(2) for number in range(20)} <= devices
    assert len(entries) == 43
