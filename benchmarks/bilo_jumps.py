"""BiLO where the solution has a kink: particles from a source in a point.

Birth 500 and death 10, in 100 snapshots; searches begin at (250, 5). "off exact" is how far
BiLO's params are from where the exact solver finds the maximum of the posterior, the larger
of both, relative; "u" the network's root-mean-square distance from the exact solution
there, relative. CPU seconds, one thread.

    python benchmarks/bilo_jumps.py
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _report import short, write_report
from unknown_functions import QUICK

from sklearn_inverse import GradientInverter
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.problems import point_source


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-sets", type=int, default=3)
    n_sets = parser.parse_args().n_sets
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    write_report("bilo_jumps", particles(n_sets), threads=1)


def timed(inverter, readings):
    """Return an answer, and CPU seconds of getting ready and of each data set."""
    start = time.process_time()
    inverter.fit(readings)
    ready = time.process_time()
    answer = getattr(inverter, "posterior", inverter.invert)(readings)
    each = (time.process_time() - ready) / len(readings)
    return answer, {"CPU s, fit": short(ready - start), "CPU s, each": short(each)}


def particles(n_sets):
    """Find birth and death by both."""
    system = point_source()
    mean = system.report(torch.tensor([[500.0, 10.0]], dtype=torch.float64))
    rng = np.random.default_rng(0)
    counts = rng.poisson(mean[0].numpy(), (n_sets, mean.shape[-1])).astype(float)
    exact, spent = timed(GradientInverter(system, **QUICK), counts)
    rows = [{"problem": "point source", "method": "exact", "n": n_sets} | spent]
    bilo, spent = timed(
        BiLOInverter(system, start=[250.0, 5.0], random_state=0), counts
    )
    off = np.abs(bilo.params / exact.params - 1).max(axis=1)
    return [
        *rows,
        {"problem": "point source", "method": "BiLO", "n": n_sets}
        | {"off exact": f"{off.mean():.2%}", "worst": f"{off.max():.2%}"}
        | {"u": short(bilo.network_error.max())}
        | spent,
    ]


if __name__ == "__main__":
    main()
