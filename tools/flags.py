#!/usr/bin/env python3
"""Compares how two builds compile the library, by their compile_commands.json.

    tools/flags.py MESON_BUILD CMAKE_BUILD

Fails, and says where, if a file of one is not in the other, or is compiled with another set of the flags that can change its
machine code: -m in their order, the last -O, -f, -D and -std. A file that is compiled for several instruction sets is compared
for each.
"""
import argparse
import json
import os
import re
import shlex
import sys

# What a build system adds, and no machine code depends on.
IGNORED = {"-fdiagnostics-color=always", "-fcolor-diagnostics", "-D_FILE_OFFSET_BITS=64"}


def commands(build):
    """(file, instruction set) -> flags, of the library's files."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        words = shlex.split(entry["command"])
        path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
        name = os.path.relpath(path, os.path.realpath(top))
        if not re.match(r"(src|simd)/", name) or entry.get("output", "").startswith("tests/"):
            continue
        isas = {m[1] for m in (re.search(r"-I.*\bsimd/(\w+)$", word) for word in words) if m}
        found[name, "".join(sorted(isas))] = flags(words)
    return found


def flags(words):
    words = [word for word in words if word not in IGNORED]
    return {
        "-m": [word for word in words if word.startswith("-m")],
        "-O": [word for word in words if word.startswith("-O")][-1:],
        "-f": sorted({word for word in words if word.startswith("-f")}),
        "-D": sorted({word for word in words if word.startswith("-D")}),
        "-std": [word for word in words if word.startswith("-std")],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meson_build")
    parser.add_argument("cmake_build")
    arguments = parser.parse_args()
    meson, cmake = commands(arguments.meson_build), commands(arguments.cmake_build)
    faults = [f"{name} {isa}: only in one build" for name, isa in sorted(set(meson) ^ set(cmake))]
    for key in sorted(set(meson) & set(cmake)):
        for kind, value in meson[key].items():
            if value != cmake[key][kind]:
                faults.append(f"{' '.join(key)}: {value} and {cmake[key][kind]}")
    if not meson or not any(isa for _, isa in meson):
        faults.append("no file of a kernel in " + arguments.meson_build)
    print("\n".join(faults[:10]) or f"{len(meson)} files are compiled alike")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
