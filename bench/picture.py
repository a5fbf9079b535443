"""Draws the times in a JSON file of attn-bench (--benchmark_out): no peer and no Python package is needed. tools/bench
--picture calls this.

A group of bars is an operation and a shape, a bar an instruction set or a peer. Of repetitions it takes the medians, which
Google Benchmark itself appends.
"""

import json
import os
import sys

import report

ISA_COLOURS = {"scalar": "#9a9a9a", "avx2": "#edae49", "avx512": "#d1495b", "neon": "#edae49", "sve256": "#d1495b"}
OTHER_COLOURS = ["#2e6f95", "#66a182", "#8d6a9f", "#8aa29e", "#5b4b3a"]
TO_MICROSECONDS = {"ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6}
MOST_GROUPS = 24


def median(path):
    """Microseconds by name, without the benchmarks that were skipped or failed."""
    with open(path) as file:
        results = json.load(file)
    times = {}
    for entry in results["benchmarks"]:
        if entry.get("error_occurred") or entry.get("skipped"):
            continue
        if entry.get("run_type") == "aggregate" and entry["aggregate_name"] != "median":
            continue
        name = entry.get("run_name", entry["name"])
        if entry.get("run_type") == "aggregate" or name not in times:
            times[name] = entry["real_time"] * TO_MICROSECONDS[entry["time_unit"]]
    return results["context"], times


def draw(path, picture):
    context, times = median(path)
    groups, variants = {}, []
    for name, time in times.items():
        operation, variant, shape = name.split("/")
        groups.setdefault("%s\\n%s" % (operation, shape), {})[variant] = time
        variants += [variant] if variant not in variants else []
    if not 0 < len(groups) <= MOST_GROUPS:
        sys.exit("tools/bench: a picture shows 1 to %d shapes, %s has %d: choose by --benchmark_filter"
                 % (MOST_GROUPS, path, len(groups)))  # fmt: skip
    colours = iter(OTHER_COLOURS * len(variants))
    slot = 0.8 / len(variants)
    about = "libattn %s, %s" % (context.get("attn.commit", context.get("attn.version", "")), context.get("attn.compiler", ""))
    plot = report.Plot(picture, report.quote(about), width=max(640, 160 + 90 * len(groups)))
    everything = [time for group in groups.values() for time in group.values()]
    plot.set(
        "set logscale y", "set yrange [%g:%g]" % (min(everything) / 2, max(everything) * 1.5), report.TIME_TICKS,
        "set style fill solid 0.95 noborder", "set boxwidth %g absolute" % (slot * 0.92),
        "set xrange [-0.6:%g]" % (len(groups) - 0.4), "set key outside top center horizontal noinvert",
        "set xtics scale 0 font ',12'",
        "set xtics (%s)" % ", ".join('"%s" %d' % (report.quote(group), i) for i, group in enumerate(groups)),
    )  # fmt: skip
    for position, variant in enumerate(variants):
        offset = (position - (len(variants) - 1) / 2) * slot
        rows = [(i + offset, group[variant]) for i, group in enumerate(groups.values()) if variant in group]
        colour = ISA_COLOURS.get(variant) or next(colours)
        name = report.ISA_LABELS.get(variant, report.label(variant))
        plot.curve(rows, "with boxes lc '%s' title '%s'" % (colour, report.quote(name)))
    plot.draw()
    print(os.path.abspath(picture))


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: tools/bench --picture FILE.json PICTURE.svg")
    draw(*sys.argv[1:])


if __name__ == "__main__":
    main()
