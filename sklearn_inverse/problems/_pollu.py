"""POLLU: the chemistry of air pollution, by 25 reactions of 20 species."""

import numpy as np

from sklearn_inverse.systems._reactions import ReactionSystem

__all__ = ["pollu"]

RATE_CONSTANTS = {
    "NO2 -> NO + O3P": 0.35,
    "NO + O3 -> NO2": 26.6,
    "HO2 + NO -> NO2 + OH": 1.23e4,
    "HCHO -> 2 HO2 + CO": 8.6e-4,
    "HCHO -> CO": 8.2e-4,
    "HCHO + OH -> HO2 + CO": 1.5e4,
    "ALD -> MEO2 + HO2 + CO": 1.3e-4,
    "ALD + OH -> C2O3": 2.4e4,
    "C2O3 + NO -> NO2 + MEO2 + CO2": 1.65e4,
    "C2O3 + NO2 -> PAN": 9.0e3,
    "PAN -> C2O3 + NO2": 2.2e-2,
    "MEO2 + NO -> CH3O + NO2": 1.2e4,
    "CH3O -> HCHO + HO2": 1.88,
    "NO2 + OH -> HNO3": 1.63e4,
    "O3P -> O3": 4.8e6,
    "O3 -> O1D": 3.5e-4,
    "O3 -> O3P": 1.75e-2,
    "O1D -> 2 OH": 1.0e8,
    "O1D -> O3P": 4.44e11,
    "SO2 + OH -> SO4 + HO2": 1.24e3,
    "NO3 -> NO": 2.1,
    "NO3 -> NO2 + O3P": 5.78,
    "NO2 + O3 -> NO3": 4.74e-2,
    "NO3 + NO2 -> N2O5": 1.78e3,
    "N2O5 -> NO3 + NO2": 3.12,
}

SPECIES = """
NO2 NO O3P O3 HO2 OH HCHO CO ALD MEO2 C2O3 CO2 PAN CH3O HNO3 O1D SO2 SO4 NO3 N2O5
"""
INITIAL = {"NO": 0.2, "O3": 0.04, "HCHO": 0.1, "CO": 0.3, "ALD": 0.01, "SO2": 0.007}
STATES_AT_60 = """
0.5646255480022769e-01 0.1342484130422339e00 0.4139734331099427e-08
0.5523140207484359e-02 0.2018977262302196e-06 0.1464541863493966e-06
0.7784249118997964e-01 0.3245075353396018e00 0.7494013383880406e-02
0.1622293157301561e-07 0.1135863833257075e-07 0.2230505975721359e-02
0.2087162882798630e-03 0.1396921016840158e-04 0.8964884856898295e-02
0.4352846369330103e-17 0.6899219696263405e-02 0.1007803037365946e-03
0.1772146513969984e-05 0.5682943292316392e-04
"""


def pollu():
    r"""Return POLLU, the chemistry of air pollution: 20 species, 25 rate constants.

    Its rate constants span fifteen orders of magnitude, and its smallest concentration,
    O1D, stays near :math:`4 \cdot 10^{-18}`: integrate in double precision, with an
    absolute tolerance of 1e-16 or less.

    Not all params can be recovered. O1D is in quasi-steady state, so that only the
    ratio of ``k16`` to ``k19`` matters; ``k17`` and ``k18`` have next to no effect.

    Returns
    -------
    system : ReactionSystem
        States in ppm over 60 minutes at 100 times. Params ``k1`` to ``k25``, within
        half and one and a half times their published values. Three invariants: the
        sums of nitrogen, of sulphur and of carbon.

    Notes
    -----
    With the rates :math:`r_1 = k_1 [\mathrm{NO_2}]`, :math:`r_2 = k_2 [\mathrm{NO}]
    [\mathrm{O_3}]` and so on of ``system.reactions``, the first equation is

    .. math:: [\mathrm{NO_2}]' = -r_1 + r_2 + r_3 + r_9 - r_{10} + r_{11} + r_{12}
              - r_{14} + r_{22} - r_{23} - r_{24} + r_{25}

    and the others follow alike, each reaction counted as often as it makes or uses up
    a molecule.

    References
    ----------
    .. [1] Verwer, "Gauss-Seidel iteration for stiff ODEs from chemical kinetics", SIAM
       J. Sci. Comput. 15 (1994) 1243-1250.
    """
    units = {
        f"k{j}": "1/(ppm min)" if "+" in text.split("->")[0] else "1/min"
        for j, text in enumerate(RATE_CONSTANTS, start=1)
    }
    return ReactionSystem(
        list(RATE_CONSTANTS),
        initial=INITIAL,
        nominal=list(RATE_CONSTANTS.values()),
        times=np.linspace(0.0, 60.0, 100),
        species=SPECIES.split(),
        units={"time": "min", "states": "ppm", **units},
        name="pollu",
        reference=(
            60.0,
            STATES_AT_60.split(),
            "RADAU5 at tolerance 1.1e-18: Test Set for IVP Solvers, University of Bari",
        ),
        invariants=[
            "NO2 + NO + PAN + HNO3 + NO3 + 2 N2O5",  # nitrogen
            "SO2 + SO4",  # sulphur
            "HCHO + CO + 2 ALD + MEO2 + 2 C2O3 + CO2 + 2 PAN + CH3O",  # carbon
        ],
    )
