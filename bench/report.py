"""What tools/bench shows of its results: tables as text, pictures by gnuplot, README's first screen."""

import json
import os
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
    "neon": "NEON",
    "sve256": "SVE256",
    "amx": "AMX",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx2_vnni": "AVX-VNNI",
    "neon_mm": "NEON with BF16 and I8MM",
    "neon_dot": "NEON with dot products",
}
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


def groups(cases):
    """Cases of one ISA, operation and temperature, in the order they came."""
    found = {}
    for case in cases:
        found.setdefault((case["isa"], case["operation"], case["cold"]), []).append(case)
    return found


def table(cases):
    variants = []
    for case in cases:
        variants += [variant for variant in case["peers"] if variant not in variants]
    rows = [["shape", "floor", "libattn p50", "p99", "first", *map(label, variants), "best peer /", "f32 /",
             "% of ceiling", ""]]  # fmt: skip
    for case in cases:
        peers = [case["peers"].get(variant, {}).get("p50_us") for variant in variants]
        ours = case["ours"]
        rows.append([
            case["shape"], figure(case["floor_us"]), figure(ours["p50_us"]), figure(ours["p99_us"]),
            figure(ours["first_us"]), *map(figure, peers), ratio(case), ratio(case, "f32_ratio"), percent(case),
            "noisy" if case["noisy"] else "",
        ])  # fmt: skip
    if not any(case.get("f32_ratio") for case in cases):
        rows = [row[:-3] + row[-2:] for row in rows]
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(1, "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|")
    return "\n".join(lines)


def title(isa, operation, cold):
    return "%s, %s%s (µs)" % (operation, ISA_LABELS[isa], ", cold" if cold else "")


def tables(results):
    return "\n\n".join(title(*key) + "\n\n" + table(cases) for key, cases in groups(results["cases"]).items())


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


def warm(results, isa, *operations):
    """Of floats: pictures show no other types."""
    cases = [c for c in results["cases"] if c["isa"] == isa and not c["cold"] and c["operation"] in operations]
    return [c for c in cases if "/" not in c["shape"]]


def variants_of(cases):
    present = {variant for case in cases for variant in case["peers"]}
    return ["ours", *(variant for variant in COLOURS if variant in present)]


def timing(case, variant):
    return case["ours"] if variant == "ours" else case["peers"].get(variant)


def main_cases(results, isa, operation):
    """All of GEMM; else the models, decoding over a cache."""
    if operation == "gemm":
        return warm(results, isa, operation)
    cases = [c for c in warm(results, isa, operation) if c["shape"] in MODELS and not c["shape"].startswith("dec_")]
    if operation == "attention":
        cases += [c for c in warm(results, isa, "attention_cache") if c["shape"] in MODELS]
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


def origin(results):
    about = results["about"]
    isa = next(isa for isa in ISA_LABELS if isa in about)
    versions = [
        "%s %s" % (label(peer), about[isa][peer])
        for peer in ("onednn", "openblas", "torch", "onnxruntime") if peer in about[isa]
    ]  # fmt: skip
    return "%s, one core, one thread; %s; %s; commit %s, %s. Peers: %s. Command: `%s`." % (
        about["machine"], about.get("system", "system unknown"), about[isa]["compiler"], about["commit"],
        about["date"], ", ".join(versions), about["command"],
    )  # fmt: skip


HOW_TO_READ = """\
Microseconds.

- *floor*: the multiply-adds at the measured rates of this core's units for their types, or inputs and outputs at its measured
  bandwidth for a buffer of that size, or for softmax the exp at our kernel's rate, whichever is longest; *% of ceiling*: floor
  over p50.
- A sample is one call, or the mean of as many as take 5 µs. *first*: the first call after creation.
- *best peer /*: the quickest peer's p50 over ours. *f32 /*: that of our own call with every type F32 over ours.
- A shape's second part is types: activations[-weights][-cache]. oneDNN's f32-int8 quantises rows by one scale known ahead,
  ours finds one for each row; PyTorch's is a dynamically quantised Linear.
- *noisy*: a ceiling moved by more than 3 % while the case ran, or another process had more than 3 % of the core.
- *attention_cache*, and `dec` in the pictures: keys and values come from a cache, packed ahead where a library can.
- *cold*: called in turn with others on data of their own, together twice the last-level cache or 1 GiB.
- oneDNN has neither causality nor valid lengths and computes every score; PyTorch adds a mask to all of them. ONNX Runtime
  cannot be held to AVX2."""


def page(results, directory):
    parts = ["# Measured", origin(results), HOW_TO_READ]
    for isa in (isa for isa in ISA_LABELS if isa in results["about"]):
        parts.append("## " + ISA_LABELS[isa])
        for picture in ("attention", "layer", "gemm", "roofline", "length", "rows", "valid"):
            file = "%s-%s.svg" % (picture, isa)
            if os.path.exists(os.path.join(directory, file)):
                parts.append("![%s](%s)" % (picture, file))
        for (its_isa, operation, cold), cases in groups(results["cases"]).items():
            if its_isa == isa:
                parts.append("### %s%s" % (operation, ", cold" if cold else ""))
                parts.append(table(cases))
    return "\n\n".join(parts) + "\n"


def comparison(results, isa):
    """How the quickest peer's times compare with ours, in the models' attention and layers; "" without peers."""
    cases = [case for operation in ("attention", "layer") for case in main_cases(results, isa, operation)]
    ratios = [case["ratio"] for case in cases if case["ratio"]]
    names = [label(peer) for peer in ("onednn", "openblas", "torch", "onnxruntime") if peer in results["about"][isa]]
    if not ratios:
        return ""
    return " %.2f times as fast as the quickest of %s (%s, one core, %d shapes: geometric mean, of %.2f to %.2f)" % (
        statistics.geometric_mean(ratios), " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])),
        ISA_LABELS[isa], len(ratios), min(ratios), max(ratios),
    )  # fmt: skip


PICTURES = """\
<img src="docs/heatmap.svg" alt="where a Transformer on libattn looks" width="42%">
<img src="docs/performance/attention-{isa}.svg" alt="time of attention over the limit of the core" width="57%">

Left: the attention of [a Transformer that reads dates](examples/dates). Right: the time of attention, libattn red, on {machine},
commit {commit}, {date}; [all figures](docs/performance/README.md)."""


def section(results):
    """README's first screen."""
    isa = next(isa for isa in ISA_LABELS if isa in results["about"])
    sentence = (
        "libattn computes multi-head attention on CPUs%s, and gives a request the same bits alone, in a batch, in chunks and token"
        " by token, on every instruction set, with any number of threads." % comparison(results, isa)
    )
    pictures = PICTURES.format(isa=isa, **{key: results["about"][key] for key in ("machine", "commit", "date")})
    return textwrap.fill(sentence, 128) + "\n\n" + pictures


def publish(results, root):
    directory = os.path.join(root, "docs/performance")
    with tempfile.TemporaryDirectory() as temporary:
        new = os.path.join(temporary, "performance")
        os.mkdir(new)
        draw_all(results, new)
        with open(os.path.join(new, "README.md"), "w") as file:
            file.write(page(results, new))
        with open(os.path.join(new, "results.json"), "w") as file:
            json.dump(results, file, indent=1)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(new, directory)
    readme = os.path.join(root, "README.md")
    with open(readme) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    with open(readme, "w") as file:
        file.write(before + BEGIN + "\n\n" + section(results) + "\n\n" + END + after)
