"""What the architecture promises about the source itself, and about importing it."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import jaxconv

PACKAGE = pathlib.Path(jaxconv.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 420


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: pathlib.Path) -> set[str]:
    """Every module, and every name in a module, that a file imports, and dotted names that it spells out."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


def uses(path: pathlib.Path, prefix: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for name in imported(path))


def test_there_are_modules():
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "experiments").rglob("*.py"))], ids=name_of)
def test_public_jax_only(path):
    assert not uses(path, "jax._src")
    assert not uses(path, "jaxlib")
    if path != PACKAGE / "_primitive.py":
        assert not uses(path, "jax.extend")
        assert not uses(path, "jax.interpreters")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_style(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(parse(path)))
    assert ast.get_docstring(parse(path)) or path.name == "_version.py"


# From the bottom to the top. A module imports only from what stands before it, or beside it in the same package.
LAYERS = ("_dtypes", "_spec", "_text", "_tuning", "_cost", "_algorithms", "_plan", "_primitive", "_ops")


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_from_below(layer):
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | {
        "signal",
        "lax",
        "nn",
        "_report",
        "_autotune",
        "_signal",
        "_lax",
        "_flip",
    }
    paths = sorted((PACKAGE / layer).rglob("*.py")) or [PACKAGE / f"{layer}.py"]
    for path in paths:
        assert not {name for name in above if uses(path, f"jaxconv.{name}")}


def test_experiments_use_the_public_interface():
    """All but the measurements of single algorithms, which are not public."""
    for path in set((ROOT / "experiments").rglob("*.py")) - set((ROOT / "experiments" / "speed").rglob("*.py")):
        private = {name for name in imported(path) if re.search(r"^jaxconv\.(.*\.)?_[^_]", name)}
        assert not private, path


def run_python(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light():
    """No Flax, no plotting, no SciPy beyond what JAX itself loads."""
    program = """
import sys, jax
before = set(sys.modules)
import jaxconv
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    loaded = set(run_python(program).split())
    assert "jaxconv" in loaded
    assert not loaded & {"flax", "optax", "matplotlib", "sklearn", "skimage", "scipy", "torch", "orbax"}


def test_import_works_without_flax():
    program = """
import sys
sys.modules["flax"] = None
import jaxconv
assert "nn" in jaxconv.__all__
try:
    jaxconv.nn
except ImportError as error:
    assert "flax" in str(error).lower()
else:
    raise SystemExit("jaxconv.nn was imported without Flax")
print(jaxconv.signal.convolve([1, 2], [1, 1]))
"""
    assert run_python(program).strip() == "[1 3 2]"


def test_import_leaves_jax_unconfigured():
    """Devices are made at the first computation, not at the import; and no setting of JAX changes."""
    program = """
import jax
before = dict(jax.config.values)
import jaxconv
assert dict(jax.config.values) == before
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 3)
print(len(jax.devices()))
"""
    assert run_python(program).strip() == "3"


def test_public_names():
    for name in jaxconv.__all__:
        assert getattr(jaxconv, name) is not None
    assert set(jaxconv.__all__) <= set(dir(jaxconv)) | {"nn", "__version__"}
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        jaxconv.nothing_of_the_kind  # noqa: B018
    assert (PACKAGE / "py.typed").exists()
