# ruff: noqa: T201
"""How much longer a compiled Adam step by optapi takes than one written out by hand.

The two take turns in blocks of calls, so that what else the machine does falls on both. Run by hand:
``python tests/benchmarks/ratios.py [rounds]``.
"""

import statistics
import sys
import time

from test_adam_step import CASES, compiled


def seconds(step, calls):
    """The time of one call, from a block of `calls`."""
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls


def measure(case, rounds, block=0.05):
    """The times per call of optapi and by hand, in `rounds` pairs of blocks that last about `block` seconds."""
    steps = [compiled(case, by_hand)[0] for by_hand in (False, True)]
    calls = max(1, round(block / min(seconds(step, 10) for step in steps)))
    times = [[], []]
    for turn in range(rounds):
        for i in (0, 1) if turn % 2 else (1, 0):
            times[i].append(seconds(steps[i], calls))
    return times


def main(rounds):
    print(f"{'microseconds per step':24}{'optapi':>10}{'by hand':>10}{'ratio of best':>16}{'median ratio':>16}")
    for case in CASES:
        ours, theirs = measure(case, rounds)
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        best = min(ours), min(theirs)
        print(f"{case.__name__:24}{best[0] * 1e6:10.1f}{best[1] * 1e6:10.1f}{best[0] / best[1]:16.3f}{ratio:16.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
