"""Every estimator honors scikit-learn's contract, and enough of it was run."""

from functools import cache

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_do_not_raise_errors_in_init_or_set_params,
    check_estimator,
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_methods_sample_order_invariance,
    check_methods_subset_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
    parametrize_with_checks,
)

from sklearn_inverse import (
    ADMInverter,
    BiLOInverter,
    CMAESInverter,
    FlowInverter,
    GradientInverter,
    MCMCInverter,
    ODESurrogate,
    ODESystem,
    Operator,
    PolynomialODE,
    RefinedInverter,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.baselines import (
    BatchCoupledADM,
    BPNInverter,
    FlowMatchingInverter,
    FMGradInverter,
    GradientDescentInverter,
    IFNOInverter,
    NeuralAdjointInverter,
    NIOInverter,
    PINNInverter,
    SGLDInverter,
    SpinODEInverter,
)
from sklearn_inverse.collocation import Bilevel, LocalNetwork

# Some checks ask for what no forward model explains: noise, classes, two samples.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::sklearn_inverse.exceptions.{name}")
    for name in (
        "BoundsWarning",
        "ConvergenceWarning",
        "IntegrationWarning",
        "MisfitWarning",
    )
]

QUICK = Training(max_epochs=1)
# Some checks ask for a fit of R² > 0.5, which takes a little more.
LEARNS = Training(lr=1e-2, max_epochs=20, batch_size=16)
PLAIN = Operator(n_layers=0, embedding=4)
ROUGH = ODESurrogate(
    noise=1.0, n_basis=0, network=PLAIN, training=QUICK, random_state=0
)
GRADIENT = GradientInverter(ROUGH, n_starts=1, max_iter=2, random_state=0)


def relax(t, y, p):
    """Right-hand side with as many params as need be."""
    return sum(p) / len(p) - y[0]


@cache
def relaxation(n_params, n_times):
    """Return a system of these sizes."""
    params = {f"k{i}": (-1e4, 1e4) for i in range(n_params)}
    times = np.arange(n_times + 1)
    system = ODESystem(relax, states={"y": 0.0}, params=params, times=times)
    return system.truncate(n_times)


class AnySizes:
    """Take a system of the pairs' sizes: the checks have data of many widths."""

    def _start_fit(self, observations, params, *inputs):
        shapes = [np.shape(np.asarray(data)) for data in (params, observations)]
        self._sizes = [max(s[1], 1) if len(s) > 1 else 1 for s in shapes]
        return super()._start_fit(observations, params, *inputs)

    def _given_model(self):
        return relaxation(*self._sizes)


class AnyBiLO(AnySizes, BiLOInverter):
    pass


class AnyPINN(AnySizes, PINNInverter):
    pass


class AnyBPN(AnySizes, BPNInverter):
    pass


class AnySpinODE(AnySizes, SpinODEInverter):
    pass


ESTIMATORS = {
    # Blocks, attention, norm and the direct part are all in place, as small as can be.
    "surrogate": ODESurrogate(
        n_basis=2,
        basis_epochs=2,
        network=Operator(n_layers=1, n_modes=2, embedding=4, norm="batch"),
        training=QUICK,
        random_state=0,
    ),
    # Truths simulated by a surrogate as bad as this would not help.
    "adm": ADMInverter(
        ROUGH,
        n_steps=2,
        synthetic_fraction=0.0,
        width=32,
        n_blocks=1,
        training=LEARNS,
        random_state=0,
    ),
    "flow": FlowInverter(
        ROUGH,
        n_transforms=1,
        n_bins=2,
        width=16,
        n_blocks=1,
        n_draws=8,
        training=LEARNS,
        random_state=0,
    ),
    "bilo": AnyBiLO(
        network=LocalNetwork(width=2, n_layers=1, n_collocation=3),
        pretrain_iter=2,
        descent=Bilevel(max_iter=2),
        random_state=0,
    ),
    "gradient": GRADIENT,
    "mcmc": MCMCInverter(
        ROUGH, n_starts=1, n_walkers=24, n_effective=8, max_iter=10, random_state=0
    ),
    "cmaes": CMAESInverter(ROUGH, popsize=4, max_iter=2, random_state=0),
    "refined": RefinedInverter(GRADIENT, ROUGH, max_iter=2, random_state=0),
    # Joint mode gives a sample another answer in other company, which no check allows.
    "reparam": ReparamJointInverter(
        ROUGH,
        mode="supervised",
        refine=False,
        network="mlp",
        training=LEARNS,
        random_state=0,
    ),
}
BASELINES = {
    "batch_coupled": BatchCoupledADM(
        ROUGH, n_steps=2, width=32, n_blocks=1, training=LEARNS, random_state=0
    ),
    "flow_matching": FlowMatchingInverter(
        ROUGH, n_steps=2, n_draws=8, width=16, training=LEARNS, random_state=0
    ),
    "descent": GradientDescentInverter(ROUGH, n_starts=2, max_iter=2, random_state=0),
    "sgld": SGLDInverter(ROUGH, n_starts=2, max_iter=10, random_state=0),
    "fm_grad": FMGradInverter(
        ROUGH,
        n_steps=2,
        n_particles=2,
        width=8,
        n_blocks=0,
        training=QUICK,
        random_state=0,
    ),
    "spin_ode": AnySpinODE(max_iter=2, tune_iter=2, random_state=0),
    "pinn": AnyPINN(
        network=LocalNetwork(width=2, n_layers=1, n_collocation=3),
        pretrain_iter=2,
        max_iter=2,
        random_state=0,
    ),
    "bpn": AnyBPN(
        network=LocalNetwork(width=2, n_layers=1, n_collocation=3),
        n_lower=1,
        n_broyden=1,
        pretrain_iter=2,
        max_iter=2,
        random_state=0,
    ),
    "adjoint": NeuralAdjointInverter(
        ROUGH, n_starts=2, max_iter=2, training=QUICK, random_state=0
    ),
    "nio": NIOInverter(ROUGH, n_basis=4, width=16, training=QUICK, random_state=0),
    "ifno": IFNOInverter(ROUGH, width=4, n_layers=1, training=QUICK, random_state=0),
}


def expected_failed_checks(estimator):
    return {
        "check_fit_score_takes_y": "the product is specified with fit(observations, "
        "params); the check insists on the literal name y"
    }


@parametrize_with_checks(
    list(ESTIMATORS.values()), expected_failed_checks=expected_failed_checks
)
def test_estimator_passes_the_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    list(BASELINES.values()), expected_failed_checks=expected_failed_checks
)
def test_baseline_passes_the_check(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adm", "gradient"])
def test_no_tag_silently_switches_checks_off(name):
    estimator = clone(ESTIMATORS[name])
    if name == "adm":
        estimator.set_params(training__max_epochs=1)
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    executed = [r["check_name"] for r in results if r["status"] != "skipped"]
    assert len(executed) >= 45


@pytest.mark.slow
def test_answers_do_not_depend_on_company_at_the_defaults():
    check_methods_subset_invariance("CMAESInverter", CMAESInverter())
    check_methods_sample_order_invariance("CMAESInverter", CMAESInverter())


@pytest.mark.parametrize(
    "check",
    [
        check_do_not_raise_errors_in_init_or_set_params,
        check_estimator_cloneable,
        check_estimator_repr,
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
    ],
)
def test_what_learns_equations_honors_what_is_not_about_tables(check):
    # Rows of its data are points in time, which need their times and may not be permuted:
    # all other checks call `fit` with one table of independent rows. What they ask of
    # errors, pickles and repeated fits is in tests/discovery.
    check("PolynomialODE", PolynomialODE())
