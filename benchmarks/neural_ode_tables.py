"""Examples 1-4 of "Neural ODEs for stiff systems: implicit single-step methods".

What the paper tabulates: coefficients learned by four implicit one-step methods, and how
their error falls with the number of points. Its constants are lost; ours are said here.
Example 1: y' = -1000 y. Example 2: Kaps' problem, eps = 1e-3, from (2, 1). Example 3:
Robertson's, the second state in units of 1e-4, from five starts. Times are even in
example 1 and in the transient of 2, else even in their logarithm. Example 4: HIRES from the
20 starts of the paper's Table 7, on an adaptive solver's own steps at rtol 1e-4. All data
are exact (SciPy's Radau at rtol 1e-12). "error" is the largest relative one of the
coefficients that are not zero, "slope" how it falls from the number of points before: as
the order of the step where steps are shorter than the fast time ("transient"); those of
times even in their logarithm are thousands of times longer, and what falls is mixed.

"explicit RK4" is the paper's Figure 4: the same one-step fit with the classical explicit
method. Noise is normal, in shares of each state's largest value in all runs, or of each
reading; in "textbook" of its standard deviation. "bound" is what the largest error would
be, on average, of an estimator that reached the bound of Cramér and Rao: whole runs, true
terms known, starts free. pysindy (``--sindy PYTHON``, one that has it) is tuned by the
truth, as `_sindy.py` says.

    python benchmarks/neural_ode_tables.py
    python benchmarks/neural_ode_tables.py --parts examples noise
"""

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from _report import RESULTS, short, write_report
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from sklearn_inverse import PolynomialODE
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.discovery._fit import Learning
from sklearn_inverse.discovery._options import by_reading, in_units
from sklearn_inverse.discovery._rhs import Dictionary, Monomials
from sklearn_inverse.discovery._runs import as_runs
from sklearn_inverse.ode._coefficients import RADAU5

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
LORENZ = [
    {"y1": -10.0, "y2": 10.0},
    {"y1": 28.0, "y1*y3": -1.0, "y2": -1.0},
    {"y1*y2": 1.0, "y3": -8 / 3},
]
# Not stiff, of textbooks: equations, degree, starts, end, points of a run.
TEXTBOOK = {
    "van der Pol": (
        [{"y2": 1.0}, {"y1": -1.0, "y2": 2.0, "y1^2*y2": -2.0}],
        *(3, [[2, 0], [0.5, 1]], 10, 200),
    ),
    "Brusselator": (
        [{"1": 1.0, "y1": -4.0, "y1^2*y2": 1.0}, {"y1": 3.0, "y1^2*y2": -1.0}],
        *(3, [[1, 1], [3, 1]], 10, 200),
    ),
    "competition": (
        [
            {"y1": 1.0, "y1^2": -1.0, "y1*y2": -0.5},
            {"y2": 0.7, "y1*y2": -0.21, "y2^2": -0.7},
        ],
        *(2, [[0.1, 0.1], [0.1, 1.5], [1.5, 0.1]], 12, 40),
    ),
    "epidemic": (
        [{"y1*y2": -0.5}, {"y1*y2": 0.5, "y2": -0.2}],
        *(2, [[0.99, 0.01], [0.8, 0.1]], 40, 60),
    ),
    "Duffing": (
        [{"y2": 1.0}, {"y1": 1.0, "y2": -0.2, "y1^3": -1.0}],
        *(3, [[1.5, 0], [-1, 0.5]], 15, 200),
    ),
}
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
        warnings.simplefilter("ignore")
        model.fit(runs, times)
    seconds = time.process_time() - start
    row = compared(model.coef_, coefficients(truth, model.feature_names_))
    if model.module == "polynomial":
        row |= {"rank": f"{model.rank_} of {len(model.feature_names_)}"}
    return row | {"CPU s": short(seconds)}, model


def coefficients(truth, terms):
    """Return true coefficients of all terms."""
    return np.array([[row.get(term, 0.0) for term in terms] for row in truth])


def compared(coef, truth):
    """Return what was found, as columns of a table."""
    there, found = truth != 0, coef != 0
    return {
        "found": f"{(there & found).sum()} of {there.sum()}",
        "false": int((found & ~there).sum()),
        "error": short(abs(coef[there] / truth[there] - 1).max()),
    }


def explicit(truth, run, times, degree):
    """Return a row of the classical explicit method, one step from point to point."""
    monomials = Monomials([f"y{i + 1}" for i in range(len(truth))], degree)
    coef, h = coefficients(truth, monomials.names), np.diff(times)[:, None]
    change = np.diff(run, axis=0)
    scale = abs(change).max(axis=0)

    def missed(x):
        def f(y):
            return monomials(y) @ x.reshape(coef.shape).T

        y = run[:-1]
        with np.errstate(all="ignore"):
            k1 = f(y)
            k2 = f(y + h / 2 * k1)
            k3 = f(y + h / 2 * k2)
            k4 = f(y + h * k3)
            left = (h / 6 * (k1 + 2 * k2 + 2 * k3 + k4) - change) / scale
        return np.nan_to_num(left, nan=1e10, posinf=1e10, neginf=-1e10).ravel()

    start = time.process_time()
    mean = h * (monomials(run[:-1]) + monomials(run[1:])) / 2
    first = np.linalg.lstsq(mean, change, rcond=1e-12)[0].T
    found = least_squares(missed, first.ravel(), x_scale="jac", max_nfev=200)
    row = compared(found.x.reshape(coef.shape), coef)
    row["left"] = short(np.sqrt(np.mean(found.fun**2)))
    return row | {"CPU s": short(time.process_time() - start)}


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
                equations.append((example, method, n, found.equations_))
        for n, runs, times in data[:: len(data) - 1]:
            row = explicit(truth, runs[0], times, degree)
            start = {"example": example, "method": "explicit RK4", "points": n}
            rows.append(start | row)
    return rows, equations


def draw(rows):
    """Draw how errors fall with the number of points, as the paper's Figures 7 and 10."""
    import matplotlib.pyplot as plt

    shown = {
        "1": "y' = -1000 y (Figure 7)",
        "2, transient": "Kaps, transient",
        "3, one run": "Robertson, one run (Figure 10)",
    }
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for ax, (example, title) in zip(axes, shown.items()):
        for method, order, color in zip(
            METHODS, [1, 2, 3, 5], ["C0", "C1", "C2", "C3"]
        ):
            some = [
                (row["points"] - 1, row["error"])
                for row in rows
                if (row["example"], row["method"]) == (example, method)
            ]
            n, error = np.array(some).T
            ax.loglog(n, error, "o-", color=color, label=f"{method} ({order})")
            # The slope of the order, through the last point.
            ax.loglog(n, error[-1] * (n / n[-1]) ** -float(order), ":", color=color)
        ax.set(title=title, xlabel="intervals", ylim=(1e-12, 1e2))
        ax.set_xticks(n, [f"{k:.0f}" for k in n])
        ax.minorticks_off()
    axes[0].set_ylabel("largest relative error")
    axes[0].legend(title="method (slope dotted)", fontsize=7, title_fontsize=7)
    fig.savefig(RESULTS / "neural_ode_slopes.png", dpi=110)


@cache
def hires_runs():
    """Return the data of example 4."""
    numbers = np.array(HIRES_STARTS.split(), dtype=float) * 1e-6
    starts = numbers.reshape(20, 8)
    f, options = right_hand_side(HIRES), {"rtol": 1e-4, "atol": 1e-8}
    own = [
        solve_ivp(f, (0, 321.8122), y0, method="Radau", **options).t for y0 in starts
    ]
    exact = solutions(HIRES, starts, 321.8122)
    return [y(t).T for y, t in zip(exact, own)], own


@cache
def robertson_runs(n=350):
    """Return five runs of example 3."""
    grid = np.concatenate([[0], np.geomspace(1e-5, 40.0, n - 1)])
    return [y(grid).T for y in solutions(ROBERTSON, STARTS, 40.0)], [grid] * len(STARTS)


def noisy(runs, level, seed, of="state"):
    """Return runs with noise, and its standard deviations: by state, or by reading."""
    noise = level * np.max([y.max(axis=0) for y in runs], axis=0)
    rng, by_reading = np.random.default_rng(seed), of == "reading"
    each = [level * abs(y) if by_reading else noise for y in runs]
    read = [y + sd * rng.standard_normal(y.shape) for y, sd in zip(runs, each)]
    return read, [level * abs(y) for y in read] if by_reading else noise


def bound(truth, runs, times, noise):
    """Return the mean of the largest relative error that an efficient estimator has."""
    if by_reading(noise):
        noise, runs = in_units(as_runs(runs, times, None, noise)[0])
    else:
        runs = as_runs(runs, times)[0]
    monomials = Monomials([f"y{i + 1}" for i in range(len(truth))], 2)
    coef = coefficients(truth, monomials.names)
    model = Dictionary(monomials, [np.eye(coef.shape[1])[:, row] for row in coef != 0])
    longest, x = max(len(run.times) for run in runs), coef[coef != 0]
    whole = Learning.of(runs, model, RADAU5.a, 1, noise, longest, free=True)
    factor = whole.linearize(whole.at(x))[:, :-1]
    draws = np.random.default_rng(0).standard_normal((10_000, len(factor)))
    errors = np.linalg.pinv(factor) @ draws.T / x[:, None]
    return short(abs(errors).max(axis=0).mean())


def hires_table():
    """Return rows of example 4."""
    runs, times = hires_runs()
    rows, equations, points = [], [], sum(map(len, times))
    for method in METHODS:
        row, model = learn(HIRES, runs, times, method=method)
        rows.append({"example": "4", "method": method, "points": points} | row)
        equations.append(("4", method, points, model.equations_))
    return rows, equations


def noise_table():
    """Return rows of examples 3 and 4 with noise, and competing equations."""
    rows, equations = [], []
    for name, truth, (runs, times), level, of, n_seeds in [
        ("4", HIRES, hires_runs(), 0.001, "reading", 5),
        ("3", ROBERTSON, robertson_runs(), 0.001, "state", 5),
        ("4", HIRES, hires_runs(), 0.001, "state", 3),
        ("3", ROBERTSON, robertson_runs(), 0.01, "state", 2),
    ]:
        for seed in range(n_seeds):
            read, noise = noisy(runs, level, seed, of)
            row, model = learn(truth, read, times, noise_std=noise)
            start = {"example": name, "noise": level, "of each": of, "seed": seed}
            row |= {"bound": bound(truth, runs, times, noise)}
            rows.append(start | row | {"alternatives": len(model.alternatives_)})
            lines = [f"  {rise:+.1f}  {line}" for line, rise in model.alternatives_]
            equations.append((name, level, of, seed, model.equations_ + lines))
            print(rows[-1], *equations[-1][-1], sep="\n", flush=True)
    return rows, equations


def textbook_table(n_seeds=6):
    """Return how often equations of textbooks are found in noisy runs, term by term."""
    rows = []
    for name, (truth, degree, starts, end, n) in TEXTBOOK.items():
        times = np.linspace(0, end, n)
        clean = [y(times).T for y in solutions(truth, starts, end)]
        for level in (0.01, 0.03):
            noise, found = level * np.concatenate(clean).std(axis=0), []
            for seed in range(n_seeds):
                rng = np.random.default_rng(seed)
                read = [y + noise * rng.standard_normal(y.shape) for y in clean]
                options = {"degree": degree, "noise_std": noise}
                found.append(learn(truth, read, [times] * len(read), **options)[0])
            whole = f"{sum(map(len, truth))} of {sum(map(len, truth))}"
            exact = [row["found"] == whole and not row["false"] for row in found]
            rows.append(
                {
                    "system": name,
                    "noise": level,
                    "exact": f"{sum(exact)} of {n_seeds}",
                    "false": sum(row["false"] for row in found),
                    "error": max(row["error"] for row in found),
                    "CPU s": short(np.mean([row["CPU s"] for row in found])),
                }
            )
            print(rows[-1], flush=True)
    return rows, []


def given_table():
    """Return rows of example 4 at 1 % noise, with its terms given."""
    runs, times = hires_runs()
    terms = {f"y{i + 1}": list(row) for i, row in enumerate(HIRES)}
    rows = []
    for seed, of in product(range(3), ["state", "reading"]):
        read, noise = noisy(runs, 0.01, seed, of)
        row, _ = learn(HIRES, read, times, noise_std=noise, terms=terms, threshold=0)
        row |= {"bound": bound(HIRES, runs, times, noise)}
        start = {
            "example": "4, terms given",
            "noise": 0.01,
            "of each": of,
            "seed": seed,
        }
        rows.append(start | row)
        print(rows[-1], flush=True)
    return rows, []


def pi_net_table():
    """Return rows of the paper's network, trained by gradients."""
    rows = []
    exact = solutions(LINEAR, [[1.0]], 0.025)
    even = np.linspace(0, 0.025, 51)
    grid = np.concatenate([[0], np.geomspace(1e-5, 5, 159)])
    kaps = [y(grid).T for y in solutions(KAPS, [[2.0, 1.0]], 5.0)]
    for name, truth, (runs, times), degree, max_iter in [
        ("1", LINEAR, ([y(even).T for y in exact], [even]), 1, 100),
        ("1", LINEAR, ([y(even).T for y in exact], [even]), 2, 100),
        ("2", KAPS, (kaps, [grid]), 2, 300),
        ("3", ROBERTSON, robertson_runs(), 2, 50),
        ("4", HIRES, hires_runs(), 2, 10),
    ]:
        options = {"degree": degree, "max_iter": max_iter, "random_state": 0}
        row, model = learn(truth, runs, times, module="pi_net", **options)
        there = coefficients(truth, model.feature_names_) != 0
        size = abs(model.coef_).max(axis=1, keepdims=True)
        row["largest of the others"] = short((abs(model.coef_) / size)[~there].max())
        start = {"example": name, "degree": degree, "gradients": model.n_iter_}
        rows.append(start | row)
        print(rows[-1], flush=True)
    return rows, []


def lynx_hare_table(first=13):
    """Return what 21 years of lynx and hare tell, and scores of predictions.

    Each year from the 14th on is predicted from the one before, with equations learned
    from the years before: the root mean square error of its logarithm. Readings count as
    off by a quarter of each animal's mean, as published.
    """
    data = load_lynx_hare()
    y, t = data.observations.reshape(21, 2), data.times
    cycle = {"hare": ["hare", "hare*lynx"], "lynx": ["lynx", "hare*lynx"]}
    ways = {
        "degree 2": {},
        "degree 2, all terms": {"threshold": 0},
        "Lotka-Volterra": {"threshold": 0, "terms": cycle},
    }
    rows, equations = [], []
    last = np.log(y[first + 1 :] / y[first:-1])
    for way, options in ways.items():
        errors = []
        for n in range(first, 21):
            model = PolynomialODE(
                noise_std=0.25 * y.mean(axis=0),
                state_names=data.observable_names,
                **options,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(y[: n + 1], t[: n + 1])
                if n < 20:
                    ahead = model.simulate(y[n], t[n : n + 2])[1]
                    # What blows up, or dies out, is as bad as a factor of ten.
                    ahead = np.nan_to_num(ahead, nan=np.inf)
                    off = np.log(np.maximum(ahead, 1e-9) / y[n + 1])
                    errors.append(np.clip(off, -np.log(10), np.log(10)))
        lines = [f"  {rise:+.1f}  {line}" for line, rise in model.alternatives_]
        equations.append((way, model.equations_ + lines))
        rows.append(
            {
                "equations": way,
                "terms": int(np.count_nonzero(model.coef_)),
                "R2 of 21 years": short(model.score(y, t)),
                "log error ahead": short(np.sqrt(np.mean(np.square(errors)))),
                "of the same again": short(np.sqrt((last**2).mean())),
            }
        )
    return rows, equations


def peer_table(python):
    """Return rows of ours and of pysindy on the same data."""
    times = np.arange(0, 10, 0.002)
    f = right_hand_side(LORENZ)
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12, "t_eval": times}
    lorenz = solve_ivp(f, (0, 10), [-8.0, 8.0, 27.0], **options).y.T
    grid = np.concatenate([[0], np.geomspace(1e-5, 5, 159)])
    kaps = [y(grid).T for y in solutions(KAPS, [[2.0, 1.0]], 5.0)]
    rows = []
    for name, truth, (runs, own), level in [
        ("Lorenz, clean", LORENZ, ([lorenz], [times]), 0.0),
        ("2, clean", KAPS, (kaps, [grid]), 0.0),
        ("3, clean", ROBERTSON, robertson_runs(), 0.0),
        ("4, clean", HIRES, hires_runs(), 0.0),
        ("3, .1 %", ROBERTSON, robertson_runs(), 0.001),
        ("3, 1 %", ROBERTSON, robertson_runs(), 0.01),
        ("4, .1 % of each reading", HIRES, hires_runs(), 0.001),
    ]:
        of = "reading" if "reading" in name else "state"
        read, noise = noisy(runs, level, 0, of) if level else (runs, None)
        row, model = learn(truth, read, own, noise_std=noise)
        rows.append({"data": name, "method": "PolynomialODE"} | row)
        print(rows[-1], flush=True)
        if python:
            coef = coefficients(truth, model.feature_names_)
            rows.append({"data": name} | sindy(python, read, own, coef))
            print(rows[-1], flush=True)
    return rows, []


def sindy(python, runs, times, truth):
    """Return pysindy's row."""
    problem = {
        key: [x.tolist() for x in xs]
        for key, xs in (("runs", runs), ("times", times), ("truth", truth))
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.json"
        path.write_text(json.dumps(problem | {"degree": 2}))
        script = Path(__file__).with_name("_sindy.py")
        done = subprocess.run(
            [python, script, path], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = {
        "examples": ("neural_ode_tables", tables),
        "hires": ("neural_ode_hires", hires_table),
        "given": ("neural_ode_given", given_table),
        "textbook": ("neural_ode_textbook", textbook_table),
        "pi_net": ("neural_ode_pi_net", pi_net_table),
        "lynx_hare": ("neural_ode_lynx_hare", lynx_hare_table),
        "noise": ("neural_ode_noise", noise_table),
        "peers": ("neural_ode_peers", lambda: peer_table(arguments.sindy)),
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--sindy", help="a Python that has pysindy")
    arguments = parser.parse_args()
    for part in arguments.parts:
        name, make = parts[part]
        rows, equations = make()
        for example, *which, found in equations:
            print(f"example {example}, {', '.join(map(str, which))}")
            print("\n".join(f"  {line}" for line in found))
        write_report(name, rows, threshold=0.01)
        if part == "examples":
            draw(rows)
