"""Measured data sets as long tables, with their sources and published fits."""

import itertools

import numpy as np
from sklearn.utils import Bunch

__all__ = [
    "load_alpha_pinene",
    "load_indomethacin",
    "load_influenza",
    "load_theophylline",
]

INFLUENZA = [3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]

INFLUENZA_DESCR = """\
Influenza in an English boarding school, 1978
=============================================
Boys in bed on each of 14 days, out of 763; on day 0 one was infected.

Model of the published values
-----------------------------
S' = -beta*S*I/763, I' = beta*S*I/763 - gamma*I, I(0) = 1, S(0) = 762; time in days, counts
negative binomial around I with dispersion phi. Priors: beta ~ N+(2, 1), gamma ~
N+(0.4, 0.5), 1/phi ~ Exp(5). `published` holds the mean and the standard deviation of the
posterior, by quadrature.

Sources
-------
- Data: anonymous, "Influenza in a boarding school", British Medical Journal 1 (1978) 587.
- Model: L. Grinsztajn, E. Semenova, C. Margossian, J. Riou, "Bayesian workflow for disease
  transmission modeling in Stan", Statistics in Medicine 40 (2021) 6209-6234.
"""

PINENE_TIMES = [1230, 3060, 4920, 7800, 10680, 15030, 22620, 36420]
PINENE = {
    "alpha_pinene": [88.35, 76.4, 65.1, 50.4, 37.5, 25.9, 14.0, 4.5],
    "dipentene": [7.3, 15.6, 23.1, 32.9, 42.7, 49.1, 57.4, 63.1],
    "alloocimene": [2.3, 4.5, 5.3, 6.0, 6.0, 5.9, 5.1, 3.8],
    "pyronene": [0.4, 0.7, 1.1, 1.5, 1.9, 2.2, 2.6, 2.9],
    "dimer": [1.75, 2.8, 5.8, 9.3, 12.0, 17.0, 21.0, 25.7],
}

PINENE_DESCR = """\
Isomerization of alpha-pinene at 189.5 degrees Celsius
======================================================
Percentages of alpha-pinene and four products at eight times, in minutes, from pure
alpha-pinene at time 0.

Model of the published values
-----------------------------
alpha_pinene -> dipentene (p1), alpha_pinene -> alloocimene (p2), alloocimene -> pyronene
(p3), alloocimene <-> dimer (p4, p5); the dimer counted in units of alloocimene. Least
squares over all readings: `published` holds rate constants per minute, and their sum of
squares.

Sources
-------
- Data: R. Fuguitt and J. Hawkins, "Rate of the thermal isomerization of alpha-pinene in
  the liquid phase", Journal of the American Chemical Society 69 (1947) 319-322.
- Model: G. Box, W. Hunter, J. MacGregor, J. Erjavec, "Some problems associated with the
  analysis of multiresponse data", Technometrics 15 (1973) 33-51.
- Fit: the COPS collection, problem "isomerization of alpha-pinene".
"""

THEOPHYLLINE_TIMES = """
0 .25 .57 1.12 2.02 3.82 5.1 7.03 9.05 12.12 24.37
0 .27 .52 1 1.92 3.5 5.02 7.03 9 12 24.3
0 .27 .58 1.02 2.02 3.62 5.08 7.07 9 12.15 24.17
0 .35 .6 1.07 2.13 3.5 5.02 7.02 9.02 11.98 24.65
0 .3 .52 1 2.02 3.5 5.02 7.02 9.1 12 24.35
0 .27 .58 1.15 2.03 3.57 5 7 9.22 12.1 23.85
0 .25 .5 1.02 2.02 3.48 5 6.98 9 12.05 24.22
0 .25 .52 .98 2.02 3.53 5.05 7.15 9.07 12.1 24.12
0 .3 .63 1.05 2.02 3.53 5.02 7.17 8.8 11.6 24.43
0 .37 .77 1.02 2.05 3.55 5.05 7.08 9.38 12.1 23.7
0 .25 .5 .98 1.98 3.6 5.02 7.03 9.03 12.12 24.08
0 .25 .5 1 2 3.52 5.07 7.07 9.03 12.05 24.15
"""
THEOPHYLLINE = """
.74 2.84 6.57 10.5 9.66 8.58 8.36 7.47 6.89 5.94 3.28
0 1.72 7.91 8.31 8.33 6.85 6.08 5.4 4.55 3.01 .9
0 4.4 6.9 8.2 7.8 7.5 6.2 5.3 4.9 3.7 1.05
0 1.89 4.6 8.6 8.38 7.54 6.88 5.78 5.33 4.19 1.15
0 2.02 5.63 11.4 9.33 8.74 7.56 7.09 5.9 4.37 1.57
0 1.29 3.08 6.44 6.32 5.53 4.94 4.02 3.46 2.78 .92
.15 .85 2.35 5.02 6.58 7.09 6.66 5.25 4.39 3.53 1.15
0 3.05 3.05 7.31 7.56 6.59 5.88 4.73 4.57 3 1.25
0 7.37 9.03 7.14 6.33 5.66 5.67 4.24 4.11 3.16 1.12
.24 2.89 5.22 6.41 7.83 10.21 9.18 8.02 7.14 5.68 2.42
0 4.86 7.24 8 6.81 5.87 5.22 4.45 3.62 2.69 .86
0 1.25 3.96 7.82 9.72 9.75 8.57 6.59 6.11 4.57 1.17
"""
THEOPHYLLINE_DOSES = [
    4.02, 4.4, 4.53, 4.4, 5.86, 4.0, 4.95, 4.53, 3.1, 5.5, 4.92, 5.3,
]  # fmt: skip

THEOPHYLLINE_DESCR = """\
Theophylline in the blood of twelve people
==========================================
One oral dose for each (mg per kg of body weight, column `dose`), and eleven concentrations
in serum (mg/l) over a day (h).

Model of the published values
-----------------------------
gut' = -ka*gut, blood' = ka*gut - ke*blood, gut(0) = dose, concentration = blood*ke/cl,
least squares for the first person alone: `published` holds logarithms of ke, ka (per h)
and cl (l/h/kg), and the residual standard error.

Sources
-------
- Data: R. Upton, in A. Boeckmann, L. Sheiner, S. Beal, "NONMEM users guide: part V", NONMEM
  Project Group, University of California, San Francisco, 1994; as the data set `Theoph`
  of R.
- Fit: the help page of `SSfol` in R.
"""

INDOMETHACIN_TIMES = [0.25, 0.5, 0.75, 1, 1.25, 2, 3, 4, 5, 6, 8]
INDOMETHACIN = """
1.5 .94 .78 .48 .37 .19 .12 .11 .08 .07 .05
2.03 1.63 .71 .7 .64 .36 .32 .2 .25 .12 .08
2.72 1.49 1.16 .8 .8 .39 .22 .12 .11 .08 .08
1.85 1.39 1.02 .89 .59 .4 .16 .11 .1 .07 .07
2.05 1.04 .81 .39 .3 .23 .13 .11 .08 .1 .06
2.31 1.44 1.03 .84 .64 .42 .24 .17 .13 .1 .09
"""

INDOMETHACIN_DESCR = """\
Indomethacin in the blood of six people
=======================================
25 mg into a vein at time 0, and eleven concentrations in plasma (mg/l) over eight hours.

Model of the published values
-----------------------------
Two compartments: central' = -(k10 + k12)*central + k21*tissue, tissue' = k12*central -
k21*tissue, central(0) = 25, concentration = central/v; that is A1*exp(-r1*t) +
A2*exp(-r2*t). Least squares for the first person alone: `published` holds A1, log r1, A2,
log r2, and the residual standard error.

Sources
-------
- Data: K. Kwan, G. Breault, E. Umbenhauer, F. McMahon, D. Duggan, "Kinetics of indomethacin
  absorption, elimination, and enterohepatic circulation in man", Journal of
  Pharmacokinetics and Biopharmaceutics 4 (1976) 255-280; as the data set `Indometh` of R.
- Fit: the help page of `SSbiexp` in R.
"""


def load_influenza():
    """Load the boarding school influenza of 1978: one epidemic, 14 daily counts.

    Returns
    -------
    data : Bunch
        With the entries

        table : dict
            Columns ``time`` (days) and ``value``, for
            :func:`~sklearn_inverse.datasets.read_table`.
        published : dict
            Posterior ``mean`` and ``std`` of ``param_names``, and their ``source``.
        DESCR : str
            Description, model and sources.

    Examples
    --------
    >>> from sklearn_inverse.datasets import load_influenza
    >>> load_influenza().table["value"][:4]
    [3, 8, 26, 76]
    """
    published = {
        "param_names": ["beta", "gamma", "1/phi"],
        "mean": np.array([1.7349, 0.5420, 0.1375]),
        "std": np.array([0.0528, 0.0454, 0.0748]),
        "source": "quadrature of the model in DESCR",
    }
    table = {"time": list(range(1, 15)), "value": INFLUENZA}
    return Bunch(table=table, published=published, DESCR=INFLUENZA_DESCR)


def load_alpha_pinene():
    """Load the isomerization of α-pinene: five species at eight times.

    Returns
    -------
    data : Bunch
        With the entries

        table : dict
            Columns ``time`` (min), ``observable`` and ``value`` (%), for
            :func:`~sklearn_inverse.datasets.read_table`.
        published : dict
            Least-squares ``mean`` of ``param_names``, their ``sum_of_squares`` and
            ``source``.
        DESCR : str
            Description, model and sources.

    Examples
    --------
    >>> from sklearn_inverse.datasets import load_alpha_pinene
    >>> sorted(set(load_alpha_pinene().table["observable"]))[:3]
    ['alloocimene', 'alpha_pinene', 'dimer']
    """
    published = {
        "param_names": ["p1", "p2", "p3", "p4", "p5"],
        "mean": np.array([5.925849, 2.963402, 2.047284, 27.44679, 3.997950]) * 1e-5,
        "sum_of_squares": 19.8721669342,
        "source": "COPS (see DESCR)",
    }
    rows = [(t, n, v) for n in PINENE for t, v in zip(PINENE_TIMES, PINENE[n])]
    names = "time", "observable", "value"
    table = dict(zip(names, map(list, zip(*rows))))
    return Bunch(table=table, published=published, DESCR=PINENE_DESCR)


def load_theophylline():
    """Load theophylline in twelve people, each with a dose and times of their own.

    Returns
    -------
    data : Bunch
        With the entries

        table : dict
            Columns ``sample`` (the person), ``dose`` (mg/kg), ``time`` (h) and ``value``
            (mg/l), for :func:`~sklearn_inverse.datasets.observations_from_table`.
        published : dict
            Least-squares ``mean`` of ``param_names`` for the first person, the residual
            standard error ``sigma``, and their ``source``.
        DESCR : str
            Description, model and sources.

    Examples
    --------
    >>> from sklearn_inverse.datasets import load_theophylline
    >>> table = load_theophylline().table
    >>> len(table["value"]), len(set(table["sample"]))
    (132, 12)
    """
    published = {
        "param_names": ["log ke", "log ka", "log cl"],
        "mean": np.array([-2.9196, 0.5752, -3.9159]),
        "sigma": 0.732,
        "source": "R, SSfol (see DESCR)",
    }
    times, values = _numbers(THEOPHYLLINE_TIMES), _numbers(THEOPHYLLINE)
    table = _by_person(times, values)
    table["dose"] = [THEOPHYLLINE_DOSES[i - 1] for i in table["sample"]]
    return Bunch(table=table, published=published, DESCR=THEOPHYLLINE_DESCR)


def load_indomethacin():
    """Load indomethacin in six people after an injection.

    Returns
    -------
    data : Bunch
        With the entries

        table : dict
            Columns ``sample`` (the person), ``time`` (h) and ``value`` (mg/l), for
            :func:`~sklearn_inverse.datasets.read_table`.
        published : dict
            Least-squares ``mean`` of ``param_names`` for the first person, the residual
            standard error ``sigma``, and their ``source``.
        DESCR : str
            Description, model and sources.

    Examples
    --------
    >>> from sklearn_inverse.datasets import load_indomethacin
    >>> load_indomethacin().table["value"][:3]
    [1.5, 0.94, 0.78]
    """
    published = {
        "param_names": ["A1", "log r1", "A2", "log r2"],
        "mean": np.array([2.0293, 0.5794, 0.1916, -1.7878]),
        "sigma": 0.04103,
        "source": "R, SSbiexp (see DESCR)",
    }
    values = _numbers(INDOMETHACIN)
    table = _by_person([INDOMETHACIN_TIMES] * len(values), values)
    return Bunch(table=table, published=published, DESCR=INDOMETHACIN_DESCR)


def _numbers(text):
    return [[float(x) for x in line.split()] for line in text.strip().splitlines()]


def _by_person(times, values):
    """Return columns of persons, numbered from 1, times and values."""
    person = [[i] * len(row) for i, row in enumerate(values, 1)]
    columns = {"sample": person, "time": times, "value": values}
    return {n: list(itertools.chain.from_iterable(x)) for n, x in columns.items()}
