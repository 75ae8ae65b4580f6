"""Examples 1-4 of "Neural ODEs for stiff systems: implicit single-step methods".

What the paper tabulates: coefficients learned by four implicit one-step methods, and how
their error falls with the number of points. Its constants are lost; ours are said here.
Example 1: y' = -1000 y. Example 2: Kaps' problem, eps = 1e-3, from (2, 1). Example 3:
Robertson's, the second state in units of 1e-4, from five starts. Times are even in
example 1 and in the transient of 2, else even in their logarithm. Example 4: HIRES from the
20 starts of the paper's Table 7, on an adaptive solver's own steps at rtol 1e-4. All data
are exact (SciPy's Radau at rtol 1e-12). "error" is the largest relative one of the
coefficients that are not zero, "slope" how it falls from the number of points before.

    python benchmarks/neural_ode_tables.py            # examples 1-3
    python benchmarks/neural_ode_tables.py --hires    # example 4
"""

import argparse
import time
import warnings

import numpy as np
from _report import short, write_report
from scipy.integrate import solve_ivp

from sklearn_inverse import PolynomialODE
from sklearn_inverse.exceptions import ConvergenceWarning, IdentifiabilityWarning

METHODS = ["backward_euler", "trapezoid", "radau3", "radau5"]
LINEAR = [{"y1": -1000.0}]
KAPS = [{"y1": -1002.0, "y2^2": 1000.0}, {"y1": 1.0, "y2": -1.0, "y2^2": -1.0}]
ROBERTSON = [
    {"y1": -0.04, "y2*y3": 1.0},
    {"y1": 400.0, "y2*y3": -1e4, "y2^2": -3e3},
    {"y2^2": 0.3},
]
BINDING = {"y6*y8": 280.0, "y7": -1.81}
HIRES = [
    {"1": 0.0007, "y1": -1.71, "y2": 0.43, "y3": 8.32},
    {"y1": 1.71, "y2": -8.75},
    {"y3": -10.03, "y4": 0.43, "y5": 0.035},
    {"y2": 8.32, "y3": 1.71, "y4": -1.12},
    {"y5": -1.745, "y6": 0.43, "y7": 0.43},
    {"y4": 0.69, "y5": 1.71, "y6": -0.43, "y7": 0.69, "y6*y8": -280.0},
    BINDING,
    {term: -value for term, value in BINDING.items()},
]
STARTS = [[1, 0, 0], [0.5, 0.3, 0.2], [0.2, 0, 1], [0.7, 0.6, 0.4], [0.1, 1, 0.1]]
# Table 7 of the paper, in units of 1e-6.
HIRES_STARTS = """
412503 906411 412933 213609 64925 293734 739312 43381
378101 391340 156641 503148 817612 433931 191203 7282
153447 71013 257224 455062 594616 367467 79906 47136
1366815 236463 873612 893106 150143 115366 968644 806
1464978 993025 537866 611333 113295 245616 548675 9430
174331 570303 497073 406965 47271 616831 686488 12478
677526 659252 589131 925035 517411 966685 301191 29454
574262 329074 33387 339584 992378 6706 446191 22913
1065735 518636 758506 998593 455977 483815 30678 4377
638101 703107 846135 816864 216076 860064 613366 19588
1158734 12780 326158 561438 609144 518287 352820 34432
949418 460502 961568 157100 282788 75279 806771 40494
1321282 269435 720024 122634 679448 838694 291664 25704
802005 760407 901060 216 427964 304100 116146 31622
486976 815268 606734 81858 338174 582653 571258 14153
792132 410891 392693 374081 764888 188351 923021 35935
1234614 605145 671905 660786 899778 751559 237024 15888
1082288 150662 70913 270047 362950 731098 485404 49797
302551 136653 118964 763691 746139 900857 791212 22706
895915 886628 236694 705427 934826 652669 889384 38102
"""


def right_hand_side(truth):
    """Return f(t, y) of equations written as dicts of terms."""
    text = ", ".join(
        "+".join(f"({value})*{term.replace('^', '**')}" for term, value in row.items())
        for row in truth
    )
    states = ", ".join(f"y{i + 1}" for i in range(len(truth)))
    names = {}
    exec(f"def f(t, y):\n    {states}, = y.tolist()\n    return [{text}]", names)
    return names["f"]


def solutions(truth, starts, end):
    """Return exact solutions, as functions of time."""
    f = right_hand_side(truth)
    options = {"method": "Radau", "rtol": 1e-12, "atol": 1e-14, "dense_output": True}
    options["max_step"] = end / 2000  # between steps the solution is a cubic
    return [solve_ivp(f, (0, end), y0, **options).sol for y0 in starts]


def learn(truth, runs, times, **options):
    """Return one row of a table, and the equations."""
    model = PolynomialODE(**options)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        model.fit(runs, times)
    seconds = time.process_time() - start
    terms = model.feature_names_
    coef = np.array([[row.get(term, 0.0) for term in terms] for row in truth])
    there, found = coef != 0, model.coef_ != 0
    error = abs(model.coef_[there] / coef[there] - 1).max()
    row = {
        "found": f"{(there & found).sum()} of {there.sum()}",
        "false": int((found & ~there).sum()),
        "error": short(error),
        "rank": f"{model.rank_} of {len(terms)}",
        "CPU s": short(seconds),
    }
    return row, model.equations_


def tables():
    """Return rows of examples 1-3."""
    plan = [
        ("1", LINEAR, [[1.0]], [6, 11, 26, 51, 101, 251], 0.025, None),
        ("2", KAPS, [[2.0, 1.0]], [40, 80, 160, 320], 5.0, 1e-5),
        ("2, transient", KAPS, [[2.0, 1.0], [0.3, 1.5]], [11, 21, 41, 81], 0.01, None),
        ("3", ROBERTSON, STARTS, [50, 100, 200, 400], 40.0, 1e-5),
        ("3, one run", ROBERTSON, STARTS[:1], [48, 94, 369, 1467], 40.0, 1e-5),
    ]
    rows, equations = [], []
    for example, truth, starts, sizes, end, first in plan:
        degree = 1 if example == "1" else 2
        data, exact = [], solutions(truth, starts, end)
        for n in sizes:
            grid = np.linspace(0, end, n)
            if first:
                grid = np.concatenate([[0], np.geomspace(first, end, n - 1)])
            data.append((n, [y(grid).T for y in exact], grid))
        for method in METHODS:
            before = None
            for n, runs, times in data:
                row, found = learn(truth, runs, times, degree=degree, method=method)
                slope = ""
                if before:
                    slope = np.log(before[1] / row["error"]) / np.log(
                        (n - 1) / before[0]
                    )
                    slope = short(slope)
                before = n - 1, row["error"]
                rows.append(
                    {"example": example, "method": method, "points": n}
                    | row
                    | {"slope": slope}
                )
                equations.append((example, method, n, found))
    return rows, equations


def hires_table():
    """Return rows of example 4."""
    numbers = np.array(HIRES_STARTS.split(), dtype=float) * 1e-6
    starts = numbers.reshape(20, 8)
    f, options = right_hand_side(HIRES), {"rtol": 1e-4, "atol": 1e-8}
    own = [
        solve_ivp(f, (0, 321.8122), y0, method="Radau", **options).t for y0 in starts
    ]
    rows, equations = [], []
    exact = solutions(HIRES, starts, 321.8122)
    runs = [y(t).T for y, t in zip(exact, own)]
    points = sum(map(len, own))
    for method in METHODS:
        row, found = learn(HIRES, runs, own, method=method)
        rows.append({"example": "4", "method": method, "points": points} | row)
        equations.append(("4", method, points, found))
    return rows, equations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hires", action="store_true", help="example 4")
    hires = parser.parse_args().hires
    rows, equations = hires_table() if hires else tables()
    for example, method, n, found in equations:
        print(f"example {example}, {method}, {n} points")
        print("\n".join(f"  {line}" for line in found))
    write_report(
        "neural_ode_hires" if hires else "neural_ode_tables", rows, threshold=0.01
    )
