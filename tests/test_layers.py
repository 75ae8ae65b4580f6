"""Imports inside the package only point downwards, so no cycle can form."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_inverse

ROOT = Path(sklearn_inverse.__file__).parent
LAYERS = [  # lowest first; a module imports only from lower layers, or its own package
    {"exceptions", "utils"},
    {"probability", "ode", "metrics"},
    {"systems", "networks", "optim"},
    {"forward", "collocation"},
    {"problems", "datasets", "base"},
    {"inverse", "discovery"},
    {"baselines", "inspection"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported_packages(source, parts):
    """Top-level names of sklearn_inverse that a module's source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            prefix = parts[: -node.level] if node.level else ()
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                full = [*prefix, *module, alias.name]
                if full[0] == "sklearn_inverse" and len(full) > 1:
                    yield full[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name.split(".")
                if full[0] == "sklearn_inverse" and len(full) > 1:
                    yield full[1]


def upward_imports(source, parts):
    """Names that the module ``parts`` imports from its own layer's peers or above."""
    own = parts[1].removesuffix(".py")
    return [
        name
        for name in imported_packages(source, parts)
        if name != own and LEVEL[name] >= LEVEL[own]
    ]


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_point_downwards(path):
    parts = ("sklearn_inverse", *path.relative_to(ROOT).parts)
    if len(parts) == 2 and path.name == "__init__.py":
        return  # the package root re-exports every layer
    assert upward_imports(path.read_text(), parts) == []


@pytest.mark.parametrize(
    "source",
    [
        "from sklearn_inverse.inverse import ADMInverter",
        "from ..inverse import ADMInverter",
        "from .. import inverse",
        "import sklearn_inverse.inspection",
        "def f():\n    from sklearn_inverse.datasets import load_lynx_hare",
    ],
)
def test_an_upward_import_is_found(source):
    assert upward_imports(source, ("sklearn_inverse", "forward", "_x.py"))


def test_import_brings_in_nothing_optional_and_starts_no_thread():
    # What our dependencies import where it is installed, as scikit-learn does pandas, is
    # their affair.
    code = (
        "import sys, threading\n"
        "import joblib, scipy.stats, sklearn.pipeline, skorch, torch, tqdm.auto\n"
        "theirs = set(sys.modules)\n"
        "import sklearn_inverse\n"
        "optional = {'matplotlib', 'pandas', 'polars', 'arviz', 'rich', 'dask'}\n"
        "ours = optional & (set(sys.modules) - theirs)\n"
        "print(sorted(ours | {'numba', 'cma'} & set(sys.modules)))\n"
        "print(threading.active_count())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.split("\n")[:2] == ["[]", "1"]
