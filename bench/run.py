"""Times libattn beside its peers on one core; tools/bench builds what this drives, and is how it is called.

Every program (attn-compare, which holds libattn, oneDNN and OpenBLAS; PyTorch; ONNX Runtime) waits for requests and times
one slice of one subject per request, all pinned to the same core, so that nothing runs beside what is timed. A case is one
operation on one shape. Its ceilings are measured, then in each repetition every peer's slice is followed by one of ours,
then the ceilings are measured again: where they moved by more than 3 %, or another process had more than 3 % of the core,
the case is called noisy.
"""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import time

import report

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MIB = 1 << 20
NOISE = 0.03

ISAS = list(report.ISA_LABELS)

# Keeps every peer to one thread and to the instruction set that is asked for. ONNX Runtime has no such setting: it is left out
# where it would take AVX-512 beside AVX2.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ONEDNN_ISAS = {
    "avx2": "AVX2",
    "avx2_vnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE",
    "avx512_vnni": "AVX512_CORE_VNNI",
    "avx512_bf16": "AVX512_CORE_BF16",
}


def environment_of(isa):
    limits = {"ATTN_MAX_ISA": isa}
    if isa in ONEDNN_ISAS:
        limits["DNNL_MAX_CPU_ISA"] = limits["ONEDNN_MAX_CPU_ISA"] = ONEDNN_ISAS[isa]
    if isa.startswith("avx2"):
        limits.update({"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"})
    return limits


ISA_ENVIRONMENT = {isa: environment_of(isa) for isa in ISAS}

# What the peers that are programs of their own have, by the last part of a benchmark's name.
EXTERNAL = {
    "torch": ("torch", {"attention": ["", "bf16"], "layer": ["", "bf16", "f32-int8"], "gemm": ["bf16", "f32-int8"]}),
    "torch_sdpa": ("torch", {"attention": ["", "bf16"], "layer": ["", "bf16"]}),
    "d2l_torch": ("torch", {"layer": [""]}),
    "onnxruntime": ("onnxruntime", {"attention": [""], "layer": [""]}),
}
COLD_SHAPES = re.compile(r"^(gemm/(1x|8x|16x)|attention/(d2l|tiny)|attention(_cache)?/dec_)")


# Of what is written for each instruction set, the one that is measured is compared with.
PER_ISA = ("sleef_", "without_", "packing_")

# Cold are as many subjects of PyTorch as hold twice the last-level cache; where they would be more, none.
MOST_SUBJECTS = 2000

# Seconds. Where a peer's call takes the first, one slice is enough; where it would take the second, there is none: PyTorch's BF16
# on AVX2 would need some two minutes for each call of long_8k.
LONG_CALL, LONGEST_CALL = 1, 10

# Of these one slice of every peer is a minute.
SLOW_SHAPES = ("long_8k", "seq_8192")


class Failed(Exception):
    pass


class Program:
    """One that answers each line with a line of JSON."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, *words):
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise Failed("%s ended" % self.process.args[0])
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Bench:
    """The programs of one instruction set."""

    def __init__(self, isa, options):
        self.isa = isa
        self.options = options
        limits = ISA_ENVIRONMENT["avx2"]  # not those that the caller's environment happens to have
        environment = {name: value for name, value in os.environ.items() if name not in limits}
        environment.update({**ONE_THREAD, **ISA_ENVIRONMENT[isa]})
        self.own = Program([options.program], environment)
        self.about = self.own.ask("about")
        if self.about["isa"] != isa:
            raise Failed("this machine has no " + isa)
        self.names = self.own.ask("list")["names"]
        self.shapes = self.own.ask("shapes")
        self.external = {}
        self.pace = {}  # microseconds for each multiply-add of a peer's last case, by (operation, variant, types)
        self.start("torch", ["/usr/bin/python3", os.path.join(HERE, "peers/pytorch.py")], environment)
        if options.node_modules and not (isa.startswith("avx2") and "avx512f" in cpuinfo().get("flags", "").split()):
            script = os.path.join(HERE, "peers/onnxruntime.js")
            self.start("onnxruntime", ["node", script, options.node_modules], environment)

    def start(self, name, command, environment):
        if name in self.options.without:
            return
        try:
            program = Program(command, environment)
            self.about.update(program.ask("about"))
            self.external[name] = program
        except (OSError, Failed) as error:
            print("without %s: %s" % (name, error), file=sys.stderr)

    def close(self):
        for program in [self.own, *self.external.values()]:
            program.close()

    def f32(self, operation, shape):
        """Our own subject that has every type F32; None for a case that is that."""
        sizes, _, types = shape.partition("/")
        if types.startswith("f32-cache_"):
            operation = "attention_cache"
        return "%s/%s/%s" % (operation, self.isa, sizes) if types else None

    def cases(self):
        """(operation, shape, names of the peers' subjects), in the order of attn-compare."""
        for name in self.names:
            operation, variant, shape = name.split("/", 2)
            if self.options.quick and shape.split("/")[0] in SLOW_SHAPES:
                continue
            if variant == self.isa and self.options.only.search("%s/%s" % (operation, shape)):
                yield operation, shape, self.peers(operation, shape)

    def peers(self, operation, shape):
        same = [operation]
        if operation == "attention_cache":
            same.append("attention")  # those that have no such thing take keys and values as they come
        found = {}
        for of in same:
            for name in self.names:
                its_operation, variant, its_shape = name.split("/", 2)
                of_isa = variant in ISA_ENVIRONMENT or variant == "scalar" or variant.startswith(PER_ISA)
                ours = variant in [prefix + self.isa for prefix in PER_ISA]
                if its_operation == of and its_shape == shape and (not of_isa or ours):
                    found.setdefault(variant, name)
            types = shape.partition("/")[2]
            for variant, (program, has) in EXTERNAL.items():
                lacks = self.about.get("torch_lacks", [])
                if program in self.external and variant not in lacks and types in has.get(of, []):
                    found.setdefault(variant, "%s/%s/%s" % (of, variant, shape))
        return found

    def ceiling(self, operation, ours, data_bytes):
        rates = self.own.ask("ceiling", ours, int(min(max(data_bytes, 16384), 512 * MIB)))
        if operation == "softmax":
            exp = next(name for name in self.names if name.startswith("exp/%s/" % self.isa))
            slice = self.own.ask("time", exp, 0.01)
            rates["gexp_per_s"] = slice["elements"] / min(slice["samples_us"]) / 1e3
        return rates

    def cold_bytes(self):
        return min(2 * self.about["last_level_bytes"], 1024 * MIB)

    def slice(self, name, cold, data_bytes=1):
        """A subject works on so many bytes of data."""
        operation, variant, shape = name.split("/", 2)
        if variant in EXTERNAL:
            count = math.ceil(self.cold_bytes() / data_bytes) if cold else 1
            if count > MOST_SUBJECTS:
                raise Failed("too many subjects would be needed to fill the caches")
            program = self.external[EXTERNAL[variant][0]]
            return program.ask("time", name, self.options.seconds, count, json.dumps(self.shapes[shape.split("/")[0]]))
        if cold:
            return self.own.ask("cold", name, self.options.seconds, self.cold_bytes() / MIB)
        return self.own.ask("time", name, self.options.seconds)

    def case(self, operation, shape, peers, cold):
        ours = "%s/%s/%s" % (operation, self.isa, shape)
        if cold:
            peers = {variant: name for variant, name in peers.items() if variant != "onnxruntime"}
        f32 = self.f32(operation, shape)
        work = self.slice(ours, cold)
        peers = {variant: name for variant, name in peers.items() if not self.is_too_slow(name, work["flops"])}
        others = [*peers.values(), *filter(None, [f32])]
        slices = {name: [] for name in [ours, *others]}
        element = 2 if shape.endswith(("/bf16", "/f16")) else 4
        before = self.ceiling(operation, ours, work["bytes"])
        for _ in range(self.options.repetitions):
            for name in others or [None]:
                for each in [name, ours]:
                    if each not in slices or (each != ours and takes_long(slices[each])):
                        continue
                    try:
                        slices[each].append(self.slice(each, cold, work["bytes"]))
                    except Failed as error:
                        if each == ours:
                            raise
                        print("without %s: %s" % (each, error), file=sys.stderr)
                        del slices[each]
        after = self.ceiling(operation, ours, work["bytes"])
        self.own.ask("forget")
        result = {
            "isa": self.isa,
            "operation": operation,
            "shape": shape,
            "cold": cold,
            "flops": work["flops"],
            "bytes": work["bytes"],
            "exps": work["bytes"] / element - work["elements"] if operation == "softmax" else 0,
            "share": sum(part["share"] for part in slices[ours]) / len(slices[ours]),
            "ours": {**statistics(slices[ours]), "first_us": work["first_us"]},
            "f32": statistics(slices[f32]) if slices.get(f32) else None,
            "peers": {variant: statistics(slices[name]) for variant, name in peers.items() if slices.get(name)},
            "ceiling": {"before": before, "after": after},
        }
        result.update(assess(result))
        for variant, timing in result["peers"].items():
            self.pace[kind_of(peers[variant])] = timing["p50_us"] / max(work["flops"], 1)
        return result

    def is_too_slow(self, name, flops):
        expected = self.pace.get(kind_of(name), 0) * flops / 1e6
        if expected > LONGEST_CALL:
            print("without %s: a call would take some %.0f s" % (name, expected), file=sys.stderr)
        return expected > LONGEST_CALL


def kind_of(name):
    """Whatever its shape."""
    operation, variant, shape = name.split("/", 2)
    return operation, variant, shape.partition("/")[2]


def takes_long(slices):
    return bool(slices) and min(slices[0]["samples_us"]) > LONG_CALL * 1e6


def statistics(slices):
    samples = sorted(sample for part in slices for sample in part["samples_us"])
    return {
        "p50_us": samples[len(samples) // 2],
        "p99_us": samples[min(len(samples) - 1, len(samples) * 99 // 100)],
        "samples": len(samples),
        "first_us": slices[0]["first_us"],
    }


def assess(case):
    """The floor is what arithmetic, reading or exp takes at the ceilings' mean, whichever is longest. A cold call reads
    memory, whatever the size of its data, so its floor is not known from theirs."""
    before, after = case["ceiling"]["before"], case["ceiling"]["after"]
    amounts = {"gflops": case["flops"], "gbytes_per_s": case["bytes"], "gexp_per_s": case["exps"]}
    floors = {rate: amounts[rate] / (before[rate] + after[rate]) * 2 / 1e3 for rate in before}
    bound = max(floors, key=floors.get)
    best = min(case["peers"], key=lambda peer: case["peers"][peer]["p50_us"], default=None)
    ours = case["ours"]["p50_us"]
    known = not case["cold"] and case["operation"] != "exp" and floors[bound] > 0
    known = known and ("gflops" in before or not case["flops"])
    f32 = case["f32"]
    return {
        "bound": {"gflops": "multiply-adds", "gbytes_per_s": "reading", "gexp_per_s": "exp"}[bound] if known else None,
        "floor_us": floors[bound] if known else None,
        "percent": 100 * floors[bound] / ours if known else None,
        "best_peer": best,
        "ratio": case["peers"][best]["p50_us"] / ours if best else None,
        "f32_ratio": f32["p50_us"] / ours if f32 else None,
        "noisy": abs(before[bound] / after[bound] - 1) > NOISE or case["share"] < 1 - NOISE,
    }


def command_output(*command):
    """Of a command that may be missing."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cpuinfo():
    """Of the first processor; empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo") as info:
            lines = [line.partition(":") for line in info.read().split("\n\n")[0].splitlines()]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in lines}


def machine():
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


# Virtual machines often tell no more of the name than "AMD EPYC". Family and models, or part, as /proc/cpuinfo has them.
CORES = [
    ("AuthenticAMD", 23, range(0x30), "AMD Zen"),
    ("AuthenticAMD", 23, range(0x30, 0x100), "AMD Zen 2"),
    ("AuthenticAMD", 25, [*range(0x10), *range(0x20, 0x60)], "AMD Zen 3"),
    ("AuthenticAMD", 25, [*range(0x10, 0x20), *range(0x60, 0xb0)], "AMD Zen 4"),
    ("AuthenticAMD", 26, range(0x100), "AMD Zen 5"),
    ("GenuineIntel", 6, [106, 108], "Intel Ice Lake"),
    ("GenuineIntel", 6, [143], "Intel Sapphire Rapids"),
    ("GenuineIntel", 6, [207], "Intel Emerald Rapids"),
    ("GenuineIntel", 6, [173, 174], "Intel Granite Rapids"),
    ("0x41", None, [0xd0c], "Arm Neoverse N1"),
    ("0x41", None, [0xd40], "Arm Neoverse V1"),
    ("0x41", None, [0xd49], "Arm Neoverse N2"),
    ("0x41", None, [0xd4f], "Arm Neoverse V2"),
]


def core():
    """Its microarchitecture, or family and model."""
    info = cpuinfo()
    vendor = info.get("vendor_id", info.get("CPU implementer"))
    family = int(info["cpu family"]) if "cpu family" in info else None
    model = int(info.get("model", info.get("CPU part", "0")), 0)
    for its_vendor, its_family, models, name in CORES:
        if (vendor, family) == (its_vendor, its_family) and model in models:
            return name
    return "%s family %s model %s" % (vendor, family, model) if vendor else ""


def system():
    """The name of a distribution, "Debian GNU/Linux 13 (trixie)", say."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def command_line(options):
    """With what changes the results."""
    words = ["tools/bench"] + (["--peers %s" % options.inside] if options.inside else [])
    words += ["--quick"] if options.quick else []
    for option in ("isa", "only", "without"):
        value = getattr(options, option)
        value = getattr(value, "pattern", value)
        words += ["--%s '%s'" % (option, value)] if value else []
    return " ".join(words + ["--seconds %g --repetitions %d" % (options.seconds, options.repetitions)])


def commit_here():
    commit = command_output("git", "rev-parse", "--short", "HEAD")
    if command_output("git", "status", "--porcelain", "--untracked-files=no", "include", "src", "simd"):
        commit += " with changes"
    return commit


def describe(options):
    return {
        "machine": machine(),
        "core": core(),
        "system": system(),
        "commit": options.commit or commit_here() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
        "command": command_line(options),
        "seconds": options.seconds,
        "repetitions": options.repetitions,
    }


def parse(words):
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Times libattn beside oneDNN, OpenBLAS, PyTorch and ONNX Runtime on one core, and prints one table.",
    )
    parser.add_argument(
        "--peers",
        choices=["debian13"],
        help="comes first: those of Debian 13, in which all of this then runs, in build-test/roots; wants root",
    )
    parser.add_argument("--isa", default="", help="names with commas, avx512,avx512_vnni; default: all of this machine")
    parser.add_argument("--only", default="", type=re.compile, help="cases whose operation/shape matches this pattern")
    parser.add_argument("--quick", action="store_true", help="short slices, nothing cold, no 8192 keys")
    parser.add_argument("--without", default="", help="peers to leave out, with commas: torch, onnxruntime")
    parser.add_argument("--seconds", type=float, help="per slice; default 0.1, quick 0.02")
    parser.add_argument("--repetitions", type=int, help="slices of each subject; default 5, quick 2")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="to pin to; default: the last")
    parser.add_argument("--json", default=os.path.join(ROOT, "build/bench.json"), help="where the results go")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="then write this machine's folder of docs/performance/, and README's first screen",
    )
    parser.add_argument("--publish-only", action="store_true", help="write them from the results of an earlier run")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    parser.add_argument("--node-modules", help=argparse.SUPPRESS)
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # whose peers these are
    parser.add_argument("--commit", help=argparse.SUPPRESS)  # where this is no repository
    options = parser.parse_args(words)
    if options.peers:
        parser.error("--peers is to be the first option")
    options.seconds = options.seconds or (0.02 if options.quick else 0.1)
    options.repetitions = options.repetitions or (2 if options.quick else 5)
    return options


def measure(options):
    os.sched_setaffinity(0, [options.core])
    results = {"about": describe(options), "cases": []}
    chosen = [isa for isa in options.isa.split(",") if isa] or ISAS
    for isa in chosen:
        try:
            bench = Bench(isa, options)
        except Failed:
            if options.isa:
                raise
            continue
        results["about"].setdefault(isa, bench.about)
        for operation, shape, peers in bench.cases():
            colds = [False, True] if COLD_SHAPES.match("%s/%s" % (operation, shape)) and not options.quick else [False]
            for cold in colds:
                case = bench.case(operation, shape, peers, cold)
                results["cases"].append(case)
                print(report.progress(case), file=sys.stderr, flush=True)
        bench.close()
    if not results["cases"]:
        raise Failed("nothing to measure")
    os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
    report.write_results(results, options.json)
    return results


def main():
    options = parse(sys.argv[1:])
    try:
        if options.publish_only:
            with open(options.json) as file:
                results = json.load(file)
        else:
            results = measure(options)
            print(report.origin(results) + "\n\n" + report.tables(results))
        if options.publish or options.publish_only:
            report.publish(results, ROOT)
    except Failed as error:
        sys.exit("tools/bench: %s" % error)


if __name__ == "__main__":
    main()
