"""Where a benchmark's numbers go: CSV and JSON, with machine, seed and versions."""

import csv
import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ["sklearn-inverse", "torch", "scikit-learn", "skorch", "numpy", "scipy"]
PEERS = ["numba", "jax", "diffrax", "torchode", "torchdiffeq"]  # where installed

RESULTS = Path(__file__).parent / "results"


def write_report(name, rows, save=True, **settings):
    """Write ``rows`` (a list of dicts) to results/<name>.csv and .json; print them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    report = {
        "machine": machine,
        "versions": versions(),
        "settings": settings,
        "rows": rows,
    }
    if save:
        RESULTS.mkdir(exist_ok=True)
        with open(RESULTS / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    widths = [max(len(c), *(len(str(r.get(c, ""))) for r in rows)) for c in columns]
    for row in [dict(zip(columns, columns)), *rows]:
        cells = (str(row.get(c, "")).rjust(w) for c, w in zip(columns, widths))
        print("  ".join(cells))
    facts = {**machine, **report["versions"]}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))


def short(number):
    """Round to three significant digits."""
    return float(f"{number:.3g}")


def versions():
    """Version of each package that is installed."""
    found = {}
    for package in [*PACKAGES, *PEERS]:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor():
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), "")
