"""What is public is documented as numpydoc asks, and the README's code runs."""

import configparser
import importlib
import inspect
import pkgutil
import re
from enum import Enum
from pathlib import Path

import pytest
from numpydoc.validate import validate

import sklearn_inverse

ROOT = Path(__file__).parents[1]
PACKAGES = ["sklearn_inverse"] + [
    f"sklearn_inverse.{module.name}"
    for module in pkgutil.iter_modules(sklearn_inverse.__path__)
    if module.ispkg
]


def public_objects():
    """Map full names to everything that the packages export, each object once."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            exported = getattr(module, name)
            if callable(exported) and exported not in found.values():
                found[f"{package}.{name}"] = exported
    return found


def own_methods(cls):
    """Names of the public methods and properties that our package defines."""
    for name, member in inspect.getmembers(cls):
        function = member.fget if isinstance(member, property) else member
        module = getattr(function, "__module__", None) or ""
        is_ours = module.startswith("sklearn_inverse") and not inspect.isclass(function)
        if not name.startswith("_") and is_ours and callable(function):
            yield name


PUBLIC = public_objects()
CLASSES = {name: cls for name, cls in PUBLIC.items() if inspect.isclass(cls)}
# What users call with arguments that need words; elsewhere a summary may say it all.
THOROUGH = {"fit", "invert", "posterior", "predict", "reconstruct", "score", "simulate"}
METHODS = [f"{name}.{m}" for name, cls in CLASSES.items() for m in own_methods(cls)]


def is_result(cls):
    """Whether we make its objects, of which users read the attributes."""
    return "Attributes\n" in cls.__doc__ and "Parameters\n" not in cls.__doc__


def chosen_checks():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return set(config["tool:numpydoc_validation"]["checks"].split(","))


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_docstring_is_complete(name):
    checks = chosen_checks()
    cls = CLASSES.get(name)
    if cls and (issubclass(cls, Enum) or is_result(cls)):
        checks -= {"PR01"}  # nobody calls the constructor
    if name in METHODS and name.rpartition(".")[2] not in THOROUGH:
        checks -= {"PR01", "RT01"}
    assert [e for e in validate(name)["errors"] if e[0] in checks] == []


@pytest.mark.parametrize("name", CLASSES)
def test_public_class_has_an_example(name):
    if is_result(CLASSES[name]):
        return
    assert re.search(r"^\s*Examples\n\s*-+$", CLASSES[name].__doc__, re.MULTILINE)


def test_every_public_object_is_looked_at():
    assert {"sklearn_inverse.ADMInverter", "sklearn_inverse.ODESurrogate"} <= set(
        PUBLIC
    )
    assert {f"sklearn_inverse.ADMInverter.{m}" for m in ("fit", "predict")} <= set(
        METHODS
    )
    assert "sklearn_inverse.ODESimulator.prior_" in METHODS
    assert len(PUBLIC) > 25


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
@pytest.mark.parametrize("page", ["README.md", "docs/how_your_model_runs.md"])
def test_code_in_pages_runs(page):
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.M)
    assert blocks
    namespace = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
