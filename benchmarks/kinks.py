"""What a prior that allows kinks is worth, and what it costs where there are none.

Poisson's equation with D = 1 + h / 2 (sigma^2 = 1e-4) and the heat equation with the start
h (sigma^2 = 1e-3), read in 49 points, made on four times as many nodes: h a hat, two peaks
or a sine. "error" is the relative L2 error of D, the mean squared error of the start, mean
over the noises; "bands" how often 90 % bands hold, "worst node" at the node where they do
least often. Order 2, scale by evidence, without kinks and with. CPU seconds per data set,
one thread.

    python benchmarks/kinks.py --n-noises 40
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _report import short, write_report
from unknown_functions import X, error_of, hat, read

from sklearn_inverse import GradientInverter
from sklearn_inverse.problems import heat, poisson

SHAPES = {
    "hat": hat,
    "two peaks": lambda x: np.interp(x, [0, 0.25, 0.6, 1], [0, 1, 0.3, 0]),
    "sine": lambda x: np.sin(np.pi * x),
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-noises", type=int, default=40)
    n_noises = parser.parse_args().n_noises
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for problem, make in (("poisson", poisson), ("heat", heat)):
        for shape, h in SHAPES.items():
            truth, u, noise = read(problem, h)
            rng = np.random.default_rng(11)
            readings = u + noise * rng.standard_normal((n_noises, len(X)))
            for kinks in (False, True):
                system = make(noise=noise, kinks=kinks)
                inverter = GradientInverter(
                    system, n_starts=1, max_solves=200 if kinks else 0, random_state=0
                ).fit(readings)
                start = time.process_time()
                found = inverter.posterior(readings)
                seconds = time.process_time() - start
                low, high = found.interval(0.9)
                error = [error_of(problem, mean, truth) for mean in found.mean]
                held = ((low < truth) & (truth < high)).mean(axis=0)
                rows.append(
                    {
                        "problem": problem,
                        "h": shape,
                        "kinks": kinks,
                        "error": short(np.mean(error)),
                        "bands": f"{held.mean():.1%}",
                        "worst node": f"{held.min():.0%}",
                        "CPU s": short(seconds / n_noises),
                    }
                )
                print(rows[-1], flush=True)
    write_report("kinks", rows, threads=1, n_noises=n_noises)


if __name__ == "__main__":
    main()
