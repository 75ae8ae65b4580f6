"""Where a benchmark's numbers go: CSV and JSON, with machine, seed and versions."""

import csv
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ["sklearn-inverse", "torch", "scikit-learn", "skorch", "numpy", "scipy"]


def write_report(name, rows, **settings):
    """Write ``rows`` (a list of dicts) to results/<name>.csv and .json; print them."""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    report = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {package: version(package) for package in PACKAGES},
        "settings": settings,
        "rows": rows,
    }
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    widths = [max(len(c), *(len(str(r.get(c, ""))) for r in rows)) for c in columns]
    for row in [dict(zip(columns, columns)), *rows]:
        cells = (str(row.get(c, "")).rjust(w) for c, w in zip(columns, widths))
        print("  ".join(cells))


def processor():
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), "")
