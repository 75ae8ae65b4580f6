"""pysindy on runs in a file: a peer of neural_ode_tables.py, in an environment of its own.

    python -m venv sindy && sindy/bin/pip install pysindy
    python benchmarks/neural_ode_tables.py --sindy sindy/bin/python

It is tuned by the truth, which helps it: of each way of differentiating, with columns
normalized or not, and each threshold of a grid, the equations of least false and missing
terms are taken, and of these those of least error.
"""

import json
import sys
import time
import warnings

import numpy as np

THRESHOLDS = np.geomspace(1e-5, 1e2, 15)


def best(runs, times, truth, degree):
    """Return the best row over all settings."""
    import pysindy as ps

    ways = {
        "central": ps.FiniteDifference(order=2),
        "order 4": ps.FiniteDifference(order=4),
        "smoothed": ps.SmoothedFiniteDifference(),
    }
    there, rows, start = truth != 0, [], time.process_time()
    for way, derivative in ways.items():
        for normalize in (False, True):
            for threshold in THRESHOLDS:
                model = ps.SINDy(
                    optimizer=ps.STLSQ(
                        threshold=threshold, alpha=1e-10, normalize_columns=normalize
                    ),
                    feature_library=ps.PolynomialLibrary(degree=degree),
                    differentiation_method=derivative,
                )
                try:
                    coef = model.fit(runs, t=times).coefficients()
                except (ValueError, np.linalg.LinAlgError):
                    continue
                found = coef != 0
                error = abs(coef[there] / truth[there] - 1).max()
                false, missing = (found & ~there).sum(), (there & ~found).sum()
                rows.append((int(false + missing), float(error), int(false), way))
    wrong, error, false, way = min(rows)
    return {
        "method": f"pysindy, {way}",
        "found": f"{there.sum() - (wrong - false)} of {there.sum()}",
        "false": false,
        "error": float(f"{error:.3g}"),
        "CPU s": float(f"{(time.process_time() - start) / len(rows):.3g}"),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with open(sys.argv[1]) as file:
        problem = json.load(file)
    runs, times = ([np.array(x) for x in problem[key]] for key in ("runs", "times"))
    print(json.dumps(best(runs, times, np.array(problem["truth"]), problem["degree"])))
