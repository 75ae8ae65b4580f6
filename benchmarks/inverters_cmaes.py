"""What does it gain to run the evolution strategies of many samples in step?

CMA-ES on 200 samples: all together, one forward call per generation, against one after
the other. The gain is in the forward model's overhead per call; pycma's own share, a
millisecond per generation and sample, is the same either way. So three forward models:
the exact one in torch (tens to hundreds of milliseconds per call, however few rows), a
learned one (milliseconds), and the exact one compiled (next to nothing).

    python benchmarks/inverters_cmaes.py
"""

import argparse
import time
import warnings
from functools import partial

import numpy as np
import torch
from _report import short, write_report
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import CMAESInverter, ODESimulator, ODESurrogate, Training
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.problems import lotka_volterra

N_SAMPLES = 200
NOISE = 0.5


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-loop", type=int, default=10, help="samples run one by one")
    parser.add_argument("--max-iter", type=int, default=60, help="generations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    system = lotka_volterra()
    pairs = make_inverse_problem(system, 2_000, noise_std=NOISE, random_state=0)
    learned = ODESurrogate(system, training=Training(max_epochs=5), random_state=0)
    learned.fit(pairs.trajectories, pairs.params)
    models = {
        "exact, torch": ODESimulator(system, backend="torch"),
        "C-FNO": FrozenEstimator(learned),
        "exact, compiled": ODESimulator(system),
    }
    rows = []
    for name, model in models.items():
        inverter = CMAESInverter(
            model, max_iter=arguments.max_iter, tol=0.0, random_state=0
        )
        readings = pairs.observations[:N_SAMPLES]
        inverter.fit(readings)
        invert = partial(inverter.predict, noise_std=NOISE)
        together, seconds = timed(invert, readings)
        few = readings[: arguments.n_loop]
        alone, loop = timed(partial(one_by_one, invert), few)
        loop *= N_SAMPLES / len(few)
        off = np.abs(together[: len(few)] / alone - 1).max()
        rows.append(
            {
                "forward model": name,
                "together (s)": short(seconds),
                "one by one (s)": short(loop),
                "ratio": short(loop / seconds),
                "largest difference": short(off),
            }
        )
        print(rows[-1], flush=True)
    write_report("inverters_cmaes", rows, **vars(arguments), samples=N_SAMPLES)


def one_by_one(invert, readings):
    """Invert samples in a loop."""
    return np.concatenate([invert(reading[None]) for reading in readings])


def timed(function, readings):
    """Return the answer and the seconds that it took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not all runs converge in so few generations
        start = time.perf_counter()
        return function(readings), time.perf_counter() - start


if __name__ == "__main__":
    main()
