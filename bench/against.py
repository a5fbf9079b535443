"""Times libattn beside an earlier commit of itself on one core; tools/bench --against builds both and calls this.

A case is one operation on one shape. Slices of the two programs take turns, and the one that goes first changes from pair to
pair, so that clock drift and neighbours meet both alike. A pair's ratio is the old time over the new one: above 1 the
present tree is faster. A case is called slower where its median is below the limit in two runs; one run that says so is
repeated at once.
"""

import argparse
import math
import os
import re
import statistics
import sys

import run

LIMIT = 0.98


def parse(words):
    parser = argparse.ArgumentParser(prog="tools/bench --against COMMIT", description=__doc__.split("\n\n")[0])
    parser.add_argument("--isa", default="", help="names with commas, avx512,avx512_vnni; default: all of this machine")
    parser.add_argument("--only", default="", type=re.compile, help="cases whose operation/shape matches this pattern")
    parser.add_argument("--pairs", type=int, default=15, help="of slices per case and run; default 15")
    parser.add_argument("--seconds", type=float, default=0.01, help="per slice; default 0.01")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="to pin to; default: the last")
    parser.add_argument("--old", help=argparse.SUPPRESS)
    parser.add_argument("--new", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def median_time(program, name, seconds):
    return statistics.median(program.ask("time", name, seconds)["samples_us"])


def median_ratio(old, new, name, options):
    """Of the pairs; and the new program's median time."""
    for program in (old, new):
        program.ask("forget")
        program.ask("time", name, options.seconds)  # makes the subject, in memory of its own
    ratios, times = [], []
    for pair in range(options.pairs):
        took = {}
        for program in (old, new) if pair % 2 else (new, old):
            took[program] = median_time(program, name, options.seconds)
        ratios.append(took[old] / took[new])
        times.append(took[new])
    return statistics.median(ratios), statistics.median(times)


def compare(isa, options):
    """Prints a line per case; returns its ratios and the names of those that are slower."""
    environment = {**os.environ, **run.ONE_THREAD, **run.ISA_ENVIRONMENT[isa]}
    old, new = (run.Program([path], environment) for path in (options.old, options.new))
    known = set(old.ask("list")["names"])
    ratios, slower = [], []
    for name in new.ask("list")["names"]:
        operation, variant, shape = name.split("/", 2)
        if variant != isa or name not in known or not options.only.search("%s/%s" % (operation, shape)):
            continue
        ratio, time = median_ratio(old, new, name, options)
        runs = [ratio]
        if ratio < LIMIT:
            runs.append(median_ratio(old, new, name, options)[0])
        mark = ""
        if max(runs) < LIMIT:
            mark = "  slower"
            slower.append(name)
        ratios.append(statistics.mean(runs))
        print("%-48s %12.3f us  %s%s" % (name, time, "  ".join("%.3f" % each for each in runs), mark), flush=True)
    old.close()
    new.close()
    return ratios, slower


def main():
    options = parse(sys.argv[1:])
    os.sched_setaffinity(0, [options.core])
    available = run.Program([options.new], dict(os.environ))
    isas = [isa for isa in options.isa.split(",") if isa]
    names = available.ask("list")["names"]
    available.close()
    isas = isas or [isa for isa in run.ISAS if any(name.split("/")[1] == isa for name in names)]
    ratios, slower = [], []
    for isa in isas:
        found = compare(isa, options)
        if found[0]:
            print("%s: geometric mean of %d cases %.4f" % (isa, len(found[0]), statistics.geometric_mean(found[0])))
        ratios += found[0]
        slower += found[1]
    if not ratios:
        sys.exit("tools/bench: nothing to compare")
    print("old / new, geometric mean of %d cases: %.4f; slower: %s"
          % (len(ratios), math.exp(sum(map(math.log, ratios)) / len(ratios)), ", ".join(slower) or "none"))
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
