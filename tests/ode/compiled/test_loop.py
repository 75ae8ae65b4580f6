"""The loop, compiled once per machine, is so anew when what it was made of changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sklearn_inverse import ode

pytest.importorskip("numba")

CODE = (
    "from sklearn_inverse.ode.compiled._loop import FINGERPRINT, cached_fingerprint\n"
    "print(FINGERPRINT, cached_fingerprint())"
)


@pytest.fixture
def run(tmp_path):
    """Run code beside a copy of the folder, with caches of its own."""
    copy = tmp_path / "sklearn_inverse" / "ode"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ode.__file__).parent, copy, ignore=ignored)
    folders = {
        name: str(tmp_path / "cache")
        for name in ("NUMBA_CACHE_DIR", "SKLEARN_INVERSE_CACHE")
    }
    options = {
        "cwd": tmp_path,
        "env": os.environ | {"PYTHONPATH": ""} | folders,
        "capture_output": True,
        "check": True,
    }
    return lambda code: subprocess.run([sys.executable, "-c", code], **options).stdout


@pytest.mark.slow
def test_a_change_of_another_file_empties_the_cache(tmp_path, run):
    copy, cache = tmp_path / "sklearn_inverse" / "ode", tmp_path / "cache"

    def fingerprints():
        return run(CODE).split()

    before = fingerprints()
    with (copy / "_step_size.py").open("a") as file:
        file.write("# changed\n")
    assert not list(cache.rglob("_loop.integrate*"))
    after = fingerprints()
    assert before[0] == before[1] != after[0] == after[1]
    assert list(cache.rglob("_loop.integrate*.nbi"))  # an index of nothing


@pytest.mark.slow
def test_damaged_files_are_written_anew(tmp_path, run):
    code = (
        "from sklearn_inverse.ode.compiled import compile_mass_action\n"
        "kernel = compile_mass_action([[-1.0]], [[1]])\n"
        "options = {'rtol': 1e-6, 'atol': 0.0, 'max_steps': 100}\n"
        "print(kernel.solve([0.0, 1.0], [[1.0]], [[1.0]], **options)['y'])"
    )
    first = run(code)
    files = [f for f in (tmp_path / "cache").rglob("*") if f.suffix in (".o", ".nbi")]
    assert len(files) == 3  # the decay, and indices of the loop and its fingerprint
    sizes = {file: file.stat().st_size for file in files}
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    assert run(code) == first
    assert sizes == {file: file.stat().st_size for file in files}
    files[0].unlink()
    assert run(code) == first
