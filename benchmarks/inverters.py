"""All figures of the inverters: each of the scripts below, one after the other.

    inverters_lotka         a growing horizon on the hard Lotka–Volterra fit
    inverters_cmaes         evolution strategies in step, against one by one
    inverters_bilo          recoveries, gradients and cost of local operators

How close every inverter comes to the Bayes limit of POLLU and GRN is in ``ino_tables.py``,
joint optimization and its rivals in ``joint_tables.py``.

    python benchmarks/inverters.py
"""

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("lotka", "cmaes", "bilo")


def main():
    """Run the scripts."""
    here = Path(__file__).parent
    for name in SCRIPTS:
        print(f"\n== {name} ==", flush=True)
        subprocess.run([sys.executable, here / f"inverters_{name}.py"], check=True)


if __name__ == "__main__":
    main()
