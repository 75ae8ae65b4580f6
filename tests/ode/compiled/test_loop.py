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


def test_a_change_of_another_file_empties_the_cache(tmp_path):
    copy, cache = tmp_path / "sklearn_inverse" / "ode", tmp_path / "cache"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ode.__file__).parent, copy, ignore=ignored)
    options = {
        "cwd": tmp_path,
        "env": os.environ | {"PYTHONPATH": "", "NUMBA_CACHE_DIR": str(cache)},
        "capture_output": True,
        "check": True,
    }

    def fingerprints():
        return subprocess.run([sys.executable, "-c", CODE], **options).stdout.split()

    before = fingerprints()
    with (copy / "_step_size.py").open("a") as file:
        file.write("# changed\n")
    assert not list(cache.rglob("_loop.integrate*"))
    after = fingerprints()
    assert before[0] == before[1] != after[0] == after[1]
    assert list(cache.rglob("_loop.integrate*.nbi"))  # an index of nothing
