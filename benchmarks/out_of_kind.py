"""Are readings that the model does not produce told from those that it does?

Held-out samples of three problems are spoiled in several ways, and answered on the exact
model by `ADMInverter` and `GradientInverter` (POLLU: from one start, to save time; it gets
fewer spoiled ones). Counted are samples called unexplained, among those that even the true
params do not explain any more: an epidemic that never began is the same in any order. What
the noise cannot give is refused. "at 1 %" is the share beyond what one in a hundred of the
clean samples exceeds, which is laxer than the package. "narrower" is the share of standard
deviations, of samples warned of, that are below that of the same sample unspoiled, and
"std ratio" the median of their ratios. "cost" is the time of an answer over that of the
learned posterior alone.

    python benchmarks/out_of_kind.py
"""

import argparse
import copy
import time
import warnings

import numpy as np
import torch
from _ino import N_OBSERVED, InoProblem
from _report import short, write_report
from known_posteriors import sbibm_predation, sbibm_sir
from scipy.stats import chi2

from sklearn_inverse import ADMInverter, Design, GradientInverter, Training
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.probability import Binomial


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--n-test", type=int, default=400, help="of ADM")
    parser.add_argument("--n-search", type=int, default=40, help="of the search")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=10, help="of what is tested")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # they are counted
    rows = []
    for name, system, n_observed, train, test, readings in problems(arguments):
        adm = ADMInverter(
            system,
            design=Design(n_observed=n_observed),
            training=Training(max_epochs=arguments.epochs),
            random_state=0,
        ).fit(train.trajectories, train.params)
        starts = {"n_starts": 1} if name == "POLLU" else {}
        search = GradientInverter(system, random_state=0, **starts).fit(readings)
        scatter, readings = (
            Scatter(system, test),
            readings.reshape(test.trajectories.shape),
        )
        for method, inverter, n in (
            ("ADM", adm, arguments.n_test),
            ("Gauss-Newton", search, arguments.n_search),
        ):
            found = judge(inverter, readings, scatter, n)
            rows += [{"problem": name, "method": method} | row for row in found]
        rows[-2 * len(found)]["cost"] = short(cost(adm, readings))
        write_report("out_of_kind", rows, threads=1, **vars(arguments))


def problems(arguments):
    """Yield names, systems, observed times, pairs to learn from, pairs and readings."""
    n_train, n_test = arguments.n_train, arguments.n_test
    for name, system in (("Lotka-Volterra", sbibm_predation()), ("SIR", sbibm_sir())):
        train = make_inverse_problem(system, n_train, random_state=0)
        test = make_inverse_problem(
            system,
            n_test,
            sampling="random",
            noisy=True,
            random_state=arguments.seed,
        )
        yield name, system, system.n_times, train, test, test.observations
    problem = InoProblem("pollu", n_train, n_test, seed=arguments.seed)
    readings = problem.observations
    yield "POLLU", problem.system, N_OBSERVED, problem.train, problem.test, readings


def cost(inverter, readings):
    """Return the time of answers over that of the learned posterior alone."""
    learned = copy.copy(inverter).set_params(kind="learned")
    times = []
    for _ in range(3):
        for one in (inverter, learned):
            start = time.perf_counter()
            one.predict(readings)
            times.append(time.perf_counter() - start)
    return min(times[::2]) / min(times[1::2])


class Scatter:
    """How readings scatter around the trajectories of a test."""

    def __init__(self, system, test):
        self.noise, self.means = system.noise, test.trajectories
        self.is_count = isinstance(self.noise.kinds[0], Binomial)
        self.is_relative = self.noise.is_relative[0]
        self.args = self.noise.arguments(torch.tensor(test.params), system.param_names)
        self.std = self.noise.std(torch.tensor(self.means), self.args).numpy()
        self.std = np.broadcast_to(self.std, self.means.shape)

    def is_strange(self, readings):
        """Return whether the true params do not explain readings."""
        n = len(readings)
        args = tuple(tuple(a[:n] for a in kind) for kind in self.args)
        y, means = torch.tensor(readings), torch.tensor(self.means[:n])
        squares = self.noise.residual(y, means, args).square().sum(dim=(1, 2)).numpy()
        return squares > chi2.isf(1e-3, (~np.isnan(readings)).sum(axis=(1, 2)))

    def noisier(self, readings, factor):
        """Return readings whose noise is larger."""
        means = self.means[: len(readings)]
        if self.is_relative:
            return means * (readings / means) ** factor
        return means + factor * (readings - means)

    def with_outlier(self, readings, size, rng):
        """Return readings one of which is off by so many standard deviations."""
        spoiled = readings.copy()
        for one, std in zip(spoiled, self.std):
            wide = std > (1 if self.is_count else 0)  # counts are whole
            places = np.argwhere(~np.isnan(one) & (wide if wide.any() else True))
            place = tuple(rng.permutation(places)[0])
            if self.is_relative:
                one[place] *= np.exp(size * self.noise.kinds[0].scale)
            else:
                one[place] += size * std[place]
        return spoiled

    def spoil(self, readings):
        """Return readings spoiled in several ways, by name."""
        rng, seen = np.random.default_rng(4), ~np.isnan(readings)
        shuffled = readings.copy()
        for one in shuffled:
            times = np.flatnonzero(~np.isnan(one).all(axis=1))
            one[times] = one[rng.permutation(times)]
        low, high = np.quantile(self.means, [0.05, 0.95], axis=(0, 1))
        n_samples, n_times, n_channels = readings.shape
        middle, steep = rng.uniform(0.2, 0.8, (2, n_samples, 1, n_channels))
        t = np.linspace(0, 1, n_times)[:, None]
        growth = low + (high - low) / (1 + np.exp(-20 * steep * (t - middle)))
        ways = {
            "2 x the noise": self.noisier(readings, 2),
            "3 x the noise": self.noisier(readings, 3),
            "one outlier of 20 sd": self.with_outlier(readings, 20, rng),
            "constant": np.nanmean(readings, axis=1, keepdims=True) + 0 * readings,
            "shuffled in time": shuffled,
            "logistic growth": np.where(seen, growth, np.nan),
        }
        if self.is_count:
            ways = {name: way.round().clip(0, 1000) for name, way in ways.items()}
        return ways | {"times 10": 10 * readings, "negated": -readings}


def judge(inverter, readings, scatter, n_spoiled):
    """Return one row per way to spoil the first readings, all the clean ones first."""
    clean = inverter.posterior(readings)
    row = {"readings": "clean", "samples": len(readings)}
    row |= {"warned": f"{np.mean(~clean.explained):.1%}", "at 1 %": "1 %"}
    usual = np.nanquantile(clean.strangeness, 0.99)
    rows = [row | {"steps": short(clean.n_iter.mean())}]
    print(rows, flush=True)
    for name, spoiled in scatter.spoil(readings[:n_spoiled]).items():
        strange = scatter.is_strange(spoiled)
        row = {"readings": name, "samples": int(strange.sum())}
        try:
            answer = inverter.posterior(spoiled[strange])
        except ValueError:  # the noise has no such readings
            rows.append(row | {"warned": "refused"})
            continue
        warned = ~answer.explained
        ratio = answer.std[warned] / clean.std[:n_spoiled][strange][warned]
        row |= {
            "warned": f"{warned.mean():.1%}",
            "at 1 %": f"{np.mean(~(answer.strangeness <= usual)):.1%}",
            "std ratio": short(np.nanmedian(ratio)),
        }
        rows.append(row | {"narrower": f"{np.mean(ratio < 1):.1%}"})
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
