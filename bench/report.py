"""What tools/bench shows of its results: tables as text, pictures by gnuplot, README's first screen."""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import textwrap

MODELS = ["d2l", "tiny", "vit_b16", "bert_128", "bert_512", "bert_b8_128", "bertL_384", "gpt2_1024", "llama_pre_512",
          "long_8k", "dec_768_1k", "dec_4096_4k"]  # fmt: skip
LABELS = {
    "ours": "libattn",
    "onednn": "oneDNN",
    "openblas": "OpenBLAS",
    "unfused_openblas": "OpenBLAS, unfused",
    "torch": "PyTorch",
    "torch_sdpa": "PyTorch SDPA",
    "d2l_torch": "d2l module, PyTorch",
    "onnxruntime": "ONNX Runtime",
    "libm": "libm",
    "memcpy": "memcpy",
}
# Those that compute in F32 first.
ISA_LABELS = {
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "sve256": "SVE256",
    "neon": "NEON",
    "amx": "AMX",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx2_vnni": "AVX-VNNI",
    "neon_mm": "NEON with BF16 and I8MM",
    "neon_dot": "NEON with dot products",
}
# Best first. One that inherits its products of some types has no cases of them.
BEST = ["amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2", "sve256", "neon_mm", "neon_dot", "neon"]
BF16_UNITS = ["amx", "avx512_bf16", "neon_mm"]
PROGRAMS = {
    "onednn": ["onednn"],
    "openblas": ["openblas", "unfused_openblas"],
    "torch": ["torch", "torch_sdpa", "d2l_torch"],
    "onnxruntime": ["onnxruntime"],
}
# A table each, by the last part of a case's name.
FAMILIES = [
    ("", "F32"),
    ("bf16", "BF16"),
    ("f16", "F16"),
    ("f32-f16", "weights of F16"),
    (".*-int8.*", "weights of INT8"),
    (".*-int4.*", "weights of INT4"),
    ("f32-cache_.*", "caches of other types"),
    ("f32-bias_.*", "masks of 16 bits"),
]
PACKED = ("import", "import_verified", "import_copy", "export")  # few cases: one table for all types
COLOURS = {
    "ours": "#d1495b",
    "onednn": "#2e6f95",
    "openblas": "#8aa29e",
    "unfused_openblas": "#8aa29e",
    "torch": "#edae49",
    "torch_sdpa": "#c1772f",
    "d2l_torch": "#8d6a9f",
    "onnxruntime": "#66a182",
}
TIME_TICKS = "set ytics (%s) scale 1,0" % ", ".join(
    "'%s' %g" % tick for tick in [
        ("0.1 µs", 0.1), ("1 µs", 1), ("10 µs", 10), ("100 µs", 100), ("1 ms", 1e3), ("10 ms", 1e4), ("100 ms", 1e5),
        ("1 s", 1e6), ("10 s", 1e7),
    ]
)  # fmt: skip
BEGIN = "<!-- tools/bench --publish writes from here -->"
END = "<!-- to here -->"


# ---- Tables


def label(variant):
    if variant.startswith("without_"):
        return "without the feature"
    if variant.startswith("packing_"):
        return "packing anew"
    return "SLEEF" if variant.startswith("sleef_") else LABELS.get(variant, variant)


def figure(value):
    """Three digits, with commas where they are thousands."""
    if value is None:
        return "-"
    if value >= 100:
        return "{:,.0f}".format(value)
    return "{:.3g}".format(value) if value < 10 else "{:.1f}".format(value)


def ratio(case, of="ratio"):
    return "%.2f" % case[of] if case.get(of) else "-"


def percent(case):
    return "-" if case["percent"] is None else "%.0f" % case["percent"]


def name(case):
    return "%s/%s/%s%s" % (case["operation"], case["isa"], case["shape"], " cold" if case["cold"] else "")


def progress(case):
    return "%-45s %10s µs, %5s x the best peer, %5s x f32, %3s %% of the ceiling%s" % (
        name(case), figure(case["ours"]["p50_us"]), ratio(case), ratio(case, "f32_ratio"), percent(case),
        ", noisy" if case["noisy"] else "",
    )  # fmt: skip


def types_of(case):
    return case["shape"].partition("/")[2]


def family(case):
    """Its place in the order, and its name."""
    if case["operation"] in PACKED:
        return len(FAMILIES), "all types"
    return next((place, family) for place, (types, family) in enumerate(FAMILIES) if re.fullmatch(types, types_of(case)))


def groups(cases):
    """By ISA, operation, whether cold, and family: (ISA, operation, cold, family) and its cases."""
    operations = list(dict.fromkeys(case["operation"] for case in cases))
    isas = list(ISA_LABELS)

    def key(case):
        return isas.index(case["isa"]), operations.index(case["operation"]), case["cold"], family(case)

    found = {}
    for case in sorted(cases, key=key):
        found.setdefault((case["isa"], case["operation"], case["cold"], family(case)[1]), []).append(case)
    return found


def text_table(rows, left=1):
    """Its first row is the head; `left` columns hold words."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("| " + " | ".join(cells) + " |")
    rules = ["-" * (width + 2) if i < left else "-" * (width + 1) + ":" for i, width in enumerate(widths)]
    lines.insert(1, "|" + "|".join(rules) + "|")
    return "\n".join(lines)


def without_empty_columns(rows):
    kept = [i for i in range(len(rows[0])) if any(row[i] not in ("", "-") for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def table(cases):
    variants = list(dict.fromkeys(variant for case in cases for variant in case["peers"]))
    several = len(set(map(types_of, cases))) > 1
    rows = [["shape", "types", "floor", "libattn p50", "p99", "first", *map(label, variants), "best peer /", "f32 /",
             "% of ceiling", ""]]  # fmt: skip
    for case in cases:
        peers = [case["peers"].get(variant, {}).get("p50_us") for variant in variants]
        ours = case["ours"]
        rows.append([
            case["shape"].partition("/")[0], (types_of(case) or "f32") if several else "", figure(case["floor_us"]),
            figure(ours["p50_us"]), figure(ours["p99_us"]), figure(ours["first_us"]), *map(figure, peers), ratio(case),
            ratio(case, "f32_ratio"), percent(case), "noisy" if case["noisy"] else "",
        ])  # fmt: skip
    return text_table(without_empty_columns(rows), 1 + several)


def title(isa, operation, cold, family):
    return "%s: %s%s, %s" % (ISA_LABELS[isa], operation, ", cold" if cold else "", family)


def tables(results):
    return "\n\n".join(title(*key) + " (µs)\n\n" + table(cases) for key, cases in groups(results["cases"]).items())


def mean(cases, of="ratio"):
    """Geometric, of those that have such a figure; None where none has."""
    ratios = [case[of] for case in cases if case.get(of)]
    return statistics.geometric_mean(ratios) if ratios else None


def summary(found):
    """A row for each table below it."""
    rows = [["table", "cases", "best peer /", "least", "most", "f32 /", "% of ceiling", "noisy"]]
    for key, cases in found.items():
        ratios = [case["ratio"] for case in cases if case["ratio"]]
        shares = [case["percent"] for case in cases if case["percent"]]
        heading = title(*key)
        rows.append([
            "[%s](#%s)" % (heading, re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")), str(len(cases)),
            *("%.2f" % value if value else "-" for value in (
                mean(cases), min(ratios, default=None), max(ratios, default=None), mean(cases, "f32_ratio"))),
            "%.0f" % statistics.median(shares) if shares else "-", str(sum(case["noisy"] for case in cases)),
        ])  # fmt: skip
    return text_table(without_empty_columns(rows))


# ---- Pictures


class Plot:
    """A gnuplot script under construction."""

    def __init__(self, path, heading, width=960, height=540):
        self.path = path
        self.blocks = []
        self.curves = []
        self.lines = [
            "set terminal svg size %d,%d dynamic enhanced font 'Helvetica,14' background '#ffffff'" % (width, height),
            "set output '%s'" % path,
            "set title '%s' font 'Helvetica,17'" % heading,
            "set border 3 lc '#555555'",
            "set tics nomirror out tc '#333333'",
            "set grid ytics lc '#e4e4e4' lt 1 lw 1",
            "set key outside right center vertical invert reverse Left samplen 2 spacing 1.2",
        ]

    def set(self, *lines):
        self.lines += lines

    def data(self, rows):
        block = "$d%d" % len(self.blocks)
        self.blocks.append("%s << EOD\n%s\nEOD" % (block, "\n".join(" ".join(map(str, row)) for row in rows)))
        return block

    def curve(self, rows, how):
        if rows:
            self.curves.append("%s %s" % (self.data(rows), how))

    def draw(self):
        if not self.curves:
            return
        script = "\n".join([*self.blocks, *self.lines, "plot " + ", \\\n  ".join(self.curves)])
        subprocess.run(["gnuplot"], input=script, text=True, check=True)


def quote(text):
    """For enhanced text, where an underscore would lower what follows."""
    return text.replace("_", "\\\\_")


def warm(results, isa, *operations, types=""):
    """Of F32, unless told: pictures show no other types."""
    cases = [c for c in results["cases"] if c["isa"] == isa and not c["cold"] and c["operation"] in operations]
    return [c for c in cases if types_of(c) == types]


def is_model(case):
    return case["shape"].partition("/")[0] in MODELS


def variants_of(cases):
    present = {variant for case in cases for variant in case["peers"]}
    return ["ours", *(variant for variant in COLOURS if variant in present)]


def timing(case, variant):
    return case["ours"] if variant == "ours" else case["peers"].get(variant)


def main_cases(results, isa, operation, types=""):
    """All of GEMM; else the models, decoding over a cache."""
    if operation == "gemm":
        return warm(results, isa, operation, types=types)
    cases = [c for c in warm(results, isa, operation, types=types) if is_model(c) and not c["shape"].startswith("dec_")]
    if operation == "attention":
        cases += [c for c in warm(results, isa, "attention_cache", types=types) if is_model(c)]
    return cases


def draw_roofline(results, isa, path):
    cases = [c for c in warm(results, isa, "gemm", "attention", "attention_cache", "layer") if c["flops"] > 0]
    cases = [c for c in cases if c["operation"] in ("gemm", "layer") or c["shape"] in MODELS]
    if not cases:
        return
    peak = sorted(c["ceiling"]["before"]["gflops"] for c in cases)[len(cases) // 2]
    read = results["about"][isa]["read"]
    marks = "squares: GEMM, circles: attention, triangles: layer"
    plot = Plot(path, "Roofline of one core, %s (%s)" % (ISA_LABELS[isa], marks), width=1080, height=600)
    plot.set(
        "set logscale xy", "set xrange [0.2:2000]", "set yrange [%g:%g]" % (peak / 200, peak * 1.6),
        "set xlabel 'FLOPs per byte of inputs and outputs'", "set ylabel 'GFLOP/s'", "set grid xtics",
        "set label '%.0f GFLOP/s of multiply-adds' at 1800,%g right font ',12' tc '#777777'" % (peak, peak * 1.18),
    )  # fmt: skip
    for level, rate in read.items():
        ridge = peak / rate
        lowest = max(0.2, peak / 200 / rate)
        plot.curve([(lowest, lowest * rate), (ridge, peak)], "with lines lc '#bbbbbb' lw 1.5 notitle")
        plot.set("set label '%s %.0f GB/s' at %g,%g rotate by 36 left font ',11' tc '#777777' front"
                 % (level, rate, max(lowest, 0.22) * 1.06, max(lowest, 0.22) * rate * 1.35))  # fmt: skip
    plot.curve([(peak / max(read.values()), peak), (2000, peak)], "with lines lc '#777777' lw 2 notitle")
    shapes = {"gemm": 5, "layer": 9, "attention": 7, "attention_cache": 7}
    for variant in reversed(variants_of(cases)):
        first = True
        for operation, mark in shapes.items():
            rows = [(c["flops"] / c["bytes"], c["flops"] / timing(c, variant)["p50_us"] / 1e3)
                    for c in cases if c["operation"] == operation and timing(c, variant)]  # fmt: skip
            how = "with points pt %d ps %g lc '%s' %s" % (
                mark, 1.0 if variant == "ours" else 0.7, COLOURS[variant],
                "title '%s'" % label(variant) if first and rows else "notitle",
            )  # fmt: skip
            first = first and not rows
            plot.curve(rows, how)
    plot.draw()


def human(us):
    value, unit = (us, "µs") if us < 1000 else (us / 1e3, "ms")
    return ("%.0f %s" if value >= 100 else "%.1f %s") % (value, unit)


def draw_bars(results, isa, operation, path, heading):
    """Time as a multiple of the floor: shapes whose times lie a million apart fit into one picture."""
    cases = main_cases(results, isa, operation)
    if not cases:
        return
    variants = variants_of(cases)
    top = max(timing(c, v)["p50_us"] / c["floor_us"] for c in cases for v in variants if timing(c, v))
    plot = Plot(path, "%s, %s: time as a multiple of the floor" % (heading, ISA_LABELS[isa]), width=1200)
    slot = 0.8 / len(variants)
    plot.set(
        "set logscale y", "set yrange [0.8:%g]" % (top * 1.3), "set ytics (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500) scale 1,0",
        "set arrow from -0.6,1 to %g,1 nohead lw 1.5 lc '#555555' front" % (len(cases) - 0.4),
        "set ylabel 'times the floor (1 = the limit of the core)'", "set style fill solid 0.95 noborder",
        "set boxwidth %g absolute" % (slot * 0.92), "set xrange [-0.6:%g]" % (len(cases) - 0.4),
        "set key outside top center horizontal noinvert", "set xtics scale 0 font ',12'",
        "set xtics (%s)" % ", ".join('"%s\\n%s" %d' % (quote(c["shape"]), human(c["ours"]["p50_us"]), i)
                                     for i, c in enumerate(cases)),
    )  # fmt: skip
    for position, variant in enumerate(variants):
        offset = (position - (len(variants) - 1) / 2) * slot
        rows = [(i + offset, timing(c, variant)["p50_us"] / c["floor_us"])
                for i, c in enumerate(cases) if timing(c, variant)]  # fmt: skip
        plot.curve(rows, "with boxes lc '%s' title '%s'" % (COLOURS[variant], label(variant)))
    plot.set("set xlabel 'under each shape: the time of libattn' font ',12' tc '#777777'")
    plot.draw()


def draw_sweep(results, isa, prefix, path, heading, axis, operations):
    cases = [c for c in warm(results, isa, *operations) if c["shape"].startswith(prefix)]
    if len(cases) < 2:
        return
    cases.sort(key=lambda c: int(c["shape"][len(prefix):]))
    plot = Plot(path, "%s, %s" % (heading, ISA_LABELS[isa]))
    times = [timing(c, v)["p50_us"] for c in cases for v in variants_of(cases) if timing(c, v)]
    times += [c["floor_us"] for c in cases]
    ticks = sorted({int(c["shape"][len(prefix):]) for c in cases})
    plot.set(
        "set logscale xy", "set xlabel '%s'" % axis, TIME_TICKS, "set yrange [%g:%g]" % (min(times) / 1.5, max(times) * 1.5),
        "set xtics (%s)" % ", ".join(map(str, ticks)),
        "set xrange [%g:%g]" % (ticks[0] / 1.1, ticks[-1] * 1.1), "set grid xtics",
    )  # fmt: skip
    last = [c for c in cases if c["operation"] == operations[-1]]
    for variant in variants_of(last)[::-1]:
        rows = [(c["shape"][len(prefix):], timing(c, variant)["p50_us"]) for c in last if timing(c, variant)]
        plot.curve(rows, "with linespoints pt 7 ps %g lw %g lc '%s' title '%s'" % (
            *((0.8, 3) if variant == "ours" else (0.6, 1.8)), COLOURS[variant],
            label(variant) + (" over a cache" if variant == "ours" and operations[-1] == "attention_cache" else ""),
        ))  # fmt: skip
    if len(operations) > 1:
        rows = [(c["shape"][len(prefix):], c["ours"]["p50_us"]) for c in cases if c["operation"] == operations[0]]
        plot.curve(rows, "with linespoints pt 6 ps 0.8 lw 2 dt 2 lc '%s' title 'libattn'" % COLOURS["ours"])
    rows = [(c["shape"][len(prefix):], c["floor_us"]) for c in last]
    plot.curve(rows, "with lines dt 3 lw 2 lc '#777777' title 'floor'")
    plot.draw()


def draw_all(results, directory):
    for isa in (isa for isa in ISA_LABELS if isa in results["about"]):
        def path(picture):
            return os.path.join(directory, "%s-%s.svg" % (picture, isa))

        draw_roofline(results, isa, path("roofline"))
        draw_bars(results, isa, "gemm", path("gemm"), "GEMM with packed weights")
        draw_bars(results, isa, "attention", path("attention"), "Attention")
        draw_bars(results, isa, "layer", path("layer"), "The whole layer")
        draw_sweep(results, isa, "seq_", path("length"), "One head of size 64 against sequence length",
                   "queries and keys", ["attention"])  # fmt: skip
        draw_sweep(results, isa, "rows_", path("rows"), "12 heads of size 64 over 4096 keys",
                   "query rows", ["attention", "attention_cache"])  # fmt: skip
        draw_sweep(results, isa, "valid_", path("valid"), "12 heads of size 64, 1000 queries and keys",
                   "visible keys, %", ["attention"])  # fmt: skip


# ---- Pages


def best_isa(results, *operations, types=""):
    """That computes such cases with kernels of its own beside some peer; None where none does."""
    return next((isa for isa in BEST if mean(warm(results, isa, *operations, types=types))), None)


def main_isa(results):
    """Whose figures stand for the machine: the best that has F32's operations, or of a partial run that has any."""
    f32 = [isa for isa in BEST if any(c["isa"] == isa and not types_of(c) for c in results["cases"])]
    return (f32 or [case["isa"] for case in results["cases"]])[0]


def peers(results):
    about = results["about"][main_isa(results)]
    return ", ".join("%s %s" % (label(peer), about[peer]) for peer in PROGRAMS if peer in about)


def machine(about):
    """Its name and, without the maker's, its core's: AMD EPYC (Zen 3)."""
    core = about.get("core", "").partition(" ")[2]
    return about["machine"] + (" (%s)" % core if core else "")


def origin(results):
    about = results["about"]
    return "%s, one core, one thread; %s; %s; commit %s, %s. Peers: %s. Command: `%s`." % (
        machine(about), about.get("system", "system unknown"), about[main_isa(results)]["compiler"], about["commit"],
        about["date"], peers(results), about["command"],
    )  # fmt: skip


HOW_TO_READ = """\
Microseconds.

- *floor*: the multiply-adds at the measured rates of this core's units for their types, or inputs and outputs at its measured
  bandwidth for a buffer of that size, or for softmax the exp at our kernel's rate, whichever is longest; *% of ceiling*: floor
  over p50.
- A sample is one call, or the mean of as many as take 5 µs. *first*: the first call after creation.
- *best peer /*: the quickest peer's p50 over ours. *f32 /*: that of our own call with every type F32 over ours. The first table
  has their geometric means, and the median share of the ceiling.
- Types are those of activations[-weights][-cache]. oneDNN's f32-int8 quantises rows by one scale known ahead, ours finds one
  for each row; PyTorch's is a dynamically quantised Linear. In f32-int8_32 our weights have a scale for each block of 32,
  oneDNN's one for each output.
- *noisy*: a ceiling moved by more than 3 % while the case ran, or another process had more than 3 % of the core.
- *attention_cache*, and `dec` in the pictures: keys and values come from a cache, packed ahead where a library can.
- *cold*: called in turn with others on data of their own, together twice the last-level cache or 1 GiB.
- *gqa*: four query heads share a kv head. To oneDNN and OpenBLAS they are four times as many rows of one head; PyTorch's
  products take repeated keys and values, its `scaled_dot_product_attention` is told (`enable_gqa`, from 2.5 on); the operator
  of ONNX Runtime has no such thing.
- BF16 without a unit for it: oneDNN has no such thing, and PyTorch takes many times as long as in F32.
- oneDNN has neither causality nor valid lengths and computes every score; PyTorch adds a mask to all of them. ONNX Runtime
  cannot be held to AVX2 where there is AVX-512."""


def page(results, directory):
    found = groups(results["cases"])
    parts = ["# Measured on %s" % machine(results["about"]), origin(results), HOW_TO_READ, summary(found)]
    for isa in ISA_LABELS:
        for picture in ("attention", "layer", "gemm", "roofline", "length", "rows", "valid"):
            file = "%s-%s.svg" % (picture, isa)
            if os.path.exists(os.path.join(directory, file)):
                parts.append("![%s](%s)" % (picture, file))
        for key, cases in found.items():
            if key[0] == isa:
                parts += ["## " + title(*key), table(cases)]
    return "\n\n".join(parts) + "\n"


def folder(results):
    """Of the machine's report: amd-zen-3-avx2."""
    about = results["about"]
    return re.sub(r"[^a-z0-9]+", "-", "%s %s" % ((about.get("core") or about["machine"]).lower(), main_isa(results)))


def compared(results, types=""):
    """The ISA, and the cases of the models' attention and layers that have a peer."""
    isa = best_isa(results, "attention", "attention_cache", "layer", types=types)
    cases = [case for operation in ("attention", "layer") for case in main_cases(results, isa, operation, types)]
    return isa, [case for case in cases if case["ratio"]]


def comparison(results, types=""):
    """How the quickest peer's times compare with ours; "" without peers."""
    isa, cases = compared(results, types)
    if not cases:
        return ""
    names = [label(peer) for peer, its in PROGRAMS.items() if any(set(its) & set(case["peers"]) for case in cases)]
    ratios = [case["ratio"] for case in cases]
    return " %.2f times as fast as %s%s (%s%s, %d shapes: geometric mean, of %.2f to %.2f)" % (
        mean(cases), "the quickest of " if names[1:] else "",
        " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])), ISA_LABELS[isa], "" if types else ", one core",
        len(cases), min(ratios), max(ratios),
    )  # fmt: skip


INDEX = """\
# Measured

A folder for each machine, which `tools/bench --publish` writes there ([how to measure](../benchmarking.md)); its page has a table
of all its tables. Figures are the quickest peer's time over ours, geometric means: of the models' attention and layers, and of
all products. *INT8* is weights of INT8 and rows of F32. On AVX2, which has no unit for BF16, its peers take many times as long as
in F32."""


def index(reports):
    rows = [["machine", "processor", "kernels", "compiler", "commit", "peers", "attention and layers, F32", "BF16",
             "products, F32", "BF16", "INT8"]]  # fmt: skip
    for name, results in reports.items():
        about = results["about"]
        means = [mean(compared(results, types)[1]) for types in ("", "bf16")]
        for types in ("", "bf16", "f32-int8"):
            means.append(mean(warm(results, best_isa(results, "gemm", types=types), "gemm", types=types)))
        rows.append([
            "[%s](%s/README.md)" % (name, name), machine(about), ISA_LABELS[main_isa(results)],
            about[main_isa(results)]["compiler"], "%s, %s" % (about["commit"], about["date"]), peers(results),
            *("%.2f" % value if value else "-" for value in means),
        ])  # fmt: skip
    return INDEX + "\n\n" + text_table(rows, 6) + "\n"


PICTURES = """\
<img src="docs/heatmap.svg" alt="where a Transformer on libattn looks" width="42%%">
<img src="docs/performance/%s/attention-%s.svg" alt="time of attention over the limit of the core" width="57%%">"""
CAPTION = (
    "Left: the attention of [a Transformer that reads dates](examples/dates). Right: the time of attention, libattn red, on %s,"
    " commit %s, %s; [all figures](docs/performance/README.md)."
)


def section(name, results):
    """README's first screen. Without a unit for BF16 its peers take many times as long as in F32: nothing to boast of."""
    low = comparison(results, "bf16") if compared(results, "bf16")[0] in BF16_UNITS else ""
    sentence = (
        "libattn computes multi-head attention on CPUs%s%s, and gives a request the same bits alone, in a batch, in chunks and"
        " token by token, on every instruction set, with any number of threads."
        % (comparison(results), low and ", in BF16" + low)
    )
    about = results["about"]
    caption = CAPTION % (machine(about), about["commit"], about["date"])
    pictures = PICTURES % (name, main_isa(results))
    return "\n\n".join([textwrap.fill(sentence, 128), pictures, textwrap.fill(caption, 128, break_on_hyphens=False)])


def write_results(results, path):
    """A line for each case."""
    with open(path, "w") as file:
        file.write('{"about": %s, "cases": [\n' % json.dumps(results["about"], indent=1))
        file.write(",\n".join(map(json.dumps, results["cases"])) + "\n]}\n")


def write_report(results, directory):
    with tempfile.TemporaryDirectory() as temporary:
        new = os.path.join(temporary, "report")
        os.mkdir(new)
        draw_all(results, new)
        with open(os.path.join(new, "README.md"), "w") as file:
            file.write(page(results, new))
        write_results(results, os.path.join(new, "results.json"))
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(new, directory)


def read_reports(top):
    """By folder, newest first."""
    reports = {}
    for name in sorted(os.listdir(top)):
        path = os.path.join(top, name, "results.json")
        if os.path.exists(path):
            with open(path) as file:
                reports[name] = json.load(file)
    return dict(sorted(reports.items(), key=lambda report: report[1]["about"]["date"], reverse=True))


def write_section(text, path):
    with open(path) as file:
        before, rest = file.read().split(BEGIN)
    with open(path, "w") as file:
        file.write(before + BEGIN + "\n\n" + text + "\n\n" + END + rest.split(END)[1])


def publish(results, root):
    """The machine's folder, the list of all of them, and README's first screen from the newest: of one day, this one."""
    top = os.path.join(root, "docs/performance")
    this = folder(results)
    write_report(results, os.path.join(top, this))
    reports = read_reports(top)
    newest = max(reports, key=lambda name: (reports[name]["about"]["date"], name == this))
    with open(os.path.join(top, "README.md"), "w") as file:
        file.write(index(reports))
    write_section(section(newest, reports[newest]), os.path.join(root, "README.md"))


if __name__ == "__main__":  # what docs/performance/README.md is to be: tools/test compares
    print(index(read_reports("docs/performance")), end="")
