"""How often intervals of FID, KID and MIND hold the true value, and how often equal cells are found to differ.

    python -m tests.benchmarks.bench_intervals [metric,distribution,samples,repetitions,scale ...]

As in ``fid,heavy-tailed,256,250,1``; each repetition measures two runs. Without any, a small one shows that it runs.
"""

import sys

from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.mind import MIND
from tests.simulated import simulate

METRICS = {"fid": FID, "kid": KID, "mind": lambda: MIND(projections=30)}
SHORT = ("kid,normal,64,100,1",)


def main(*asked: str) -> None:
    print("metric  distribution  samples  scale  covered  other noise  same noise")
    for words in asked or SHORT:
        metric, name, count, repetitions, scale = words.split(",")
        found = simulate(METRICS[metric], name, int(count), int(repetitions), float(scale))
        shares = (found.covered, found.independent, found.paired)
        print(f"{metric:7} {name:13} {count:>7} {scale:>6} ", *(f"{100 * share:.1f} %".rjust(9) for share in shares))


if __name__ == "__main__":
    main(*sys.argv[1:])
