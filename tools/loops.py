#!/usr/bin/env python3
"""Reads the disassembly of an ISA's kernels and fails where a compiler keeps a vector of an inner loop on the stack.

    tools/loops.py build/simd/libattn_avx2.a            # the loops of the GEMM tiles, and others that use the stack
    tools/loops.py --all build/simd/libattn_avx2.a      # those of all functions

An inner loop is a cycle in the control flow that holds no other. A spill is an instruction with both a vector register
and an address on the stack: also an element of an array that was meant to be registers. No GEMM tile may have one; what
the loops of attention, softmax and elementary functions may have is in LIMITS. Exits with 77 where no objdump here can
read the library.
"""
import argparse
import math
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple

# Spills that an inner loop of attention, softmax or elementary functions may have as gcc 12 and 14, clang 16 and 19 compile it;
# where there is no line, none. Other compilers may have the larger number.
Limit = namedtuple("Limit", "isa function gcc clang why")
LIMITS = [
    Limit("avx2", "online_softmax", 5, 18, "four exp at once fill the registers: constants and shift are read back, once for four"),
    Limit("avx2", "softmax_passes", 16, 18, "as in online_softmax"),
    Limit("avx2", "softmax", 1, 0, "of the file small: a constant of exp, as in exp_array"),
    Limit("avx2", "weights", 1, 4, "as in softmax_passes, and one more factor"),
    Limit("avx2", "exp_array", 12, 14, "as in online_softmax"),
    Limit("avx2", "log_array", 6, 9, "as in tanh_array"),
    Limit("avx2", "tanh_array", 6, 15, "constants of body/elementary.h, read back once a register; gcc 14: a value too"),
    Limit("avx2", "sin_array", 0, 4, "as in log_array"),
    Limit("avx2", "cos_array", 0, 6, "as in log_array"),
    Limit("avx2", "soft_cap", 6, 15, "as in tanh_array"),
    Limit("avx2", "small_finish", 0, 5, "constants of class BF16's exp, read back once a register"),
    Limit("avx512", "online_softmax_blocks", 2, 0, "the lanes' maxima of each block, stored at both ends of a loop over blocks"),
    Limit("neon", "online_softmax", 0, 2, "four exp at once, constants are read back"),
    Limit("neon", "softmax_passes", 2, 5, "four exp at once: gcc keeps one of the four sums on the stack; clang: constants"),
    Limit("neon", "exp_array", 2, 2, "four exp at once"),
    Limit("sve256", "small_softmax", 6, 0, "a loop over keys stores the sums that it leaves behind"),
]

# ---- Instructions ----

Instruction = namedtuple("Instruction", "address mnemonic operands target external")

X86_PREFIX = re.compile(r"^((\{vex\}|bnd|notrack|repz|repnz|rep|lock|data16|cs|ds) )+")
X86_VECTOR = re.compile(r"%[txyz]mm\d+")
X86_GENERAL = re.compile(r"%[er]?([abcd]x|[abcd]l|si|di|bp|sp|sil|dil|bpl|spl|\d+[dwb]?)\b")
X86_MEMORY = re.compile(r"\(([^)]*)\)")
X86_KEEPS = re.compile(r"cmp|test|push|prefetch|bt[lq]?$|nop|j|call|inc|dec")
X86_FMA = re.compile(r"vfn?m(add|sub)(132|213|231)p[sd]|[vt]dpbf16ps|tdpbssd|vpdpbusd|vpmaddubsw")
X86_MOVE = re.compile(r"vmov([au]p[sd]|dq[au]\d*)")


class X86:
    """AT&T syntax: the destination is the last operand."""

    stack_pointer = "rsp"

    @staticmethod
    def is_return(i):
        return i.mnemonic in ("ret", "ud2", "hlt")

    @staticmethod
    def is_jump(i):
        return i.mnemonic == "jmp"

    @staticmethod
    def is_branch(i):
        return i.mnemonic.startswith("j")

    @staticmethod
    def is_call(i):
        return i.mnemonic == "call"

    @staticmethod
    def vectors(i):
        return X86_VECTOR.findall(i.operands)

    @staticmethod
    def address(i):
        """The registers of the memory operand, or None."""
        if i.mnemonic.startswith(("lea", "nop")):
            return None
        memory = X86_MEMORY.search(i.operands)
        return X86.general(memory[1]) if memory else None

    @staticmethod
    def general(text):
        names = []
        for match in X86_GENERAL.finditer(text):
            name = match[1]
            if name[0].isdigit():
                name = name.rstrip("dwb")
            elif len(name) == 2 and name[1] == "l":
                name = name[0] + "x"
            names.append("r" + (name if name[0].isdigit() else name[:2]))
        return names

    @staticmethod
    def on_stack(i, stack):
        """The registers that hold an address on the stack after i, given those before."""
        operands = split(i.operands)
        if not operands or not operands[-1].startswith("%") or X86_KEEPS.match(i.mnemonic):
            return stack
        to = X86.general(operands[-1])
        if not to or to[0] == "rsp":
            return stack
        sources = []
        if i.mnemonic.startswith("lea"):
            sources = operands[:-1]
        elif i.mnemonic.startswith(("mov", "add", "sub", "and", "cmov")):
            kept = not i.mnemonic.startswith("mov")
            sources = [o for o in operands[: len(operands) - 1 + kept] if o.startswith("%")]
        if any(r in stack for o in sources for r in X86.general(o)):
            return stack | {to[0]}
        return stack - {to[0]}

    @staticmethod
    def is_fma(i):
        return bool(X86_FMA.match(i.mnemonic))

    @staticmethod
    def is_move(i):
        operands = split(i.operands)
        return bool(X86_MOVE.fullmatch(i.mnemonic)) and all(X86_VECTOR.fullmatch(o) for o in operands)

    @staticmethod
    def is_store(i):
        return "(" in split(i.operands)[-1]


ARM_VECTOR = re.compile(r"\b(?:[vz]\d+\.\d*[bhsd]|[qdsh]\d+\b|z\d+\b)")
ARM_GENERAL = re.compile(r"\b([xw]\d+|sp)\b")
ARM_MEMORY = re.compile(r"\[((?:sp|x\d+)[^\]]*)\]")
ARM_KEEPS = re.compile(r"st|cmp|cmn|tst|ccmp|ccmn|fcmp|prfm|nop|b|cb|tb|ret")


class Arm:
    """The destination is the first operand."""

    stack_pointer = "sp"

    @staticmethod
    def is_return(i):
        return i.mnemonic in ("ret", "udf", "brk")

    @staticmethod
    def is_jump(i):
        return i.mnemonic in ("b", "br")

    @staticmethod
    def is_branch(i):
        return bool(re.fullmatch(r"b|br|b\..*|cbn?z|tbn?z", i.mnemonic))

    @staticmethod
    def is_call(i):
        return i.mnemonic in ("bl", "blr")

    @staticmethod
    def vectors(i):
        return ARM_VECTOR.findall(i.operands)

    @staticmethod
    def address(i):
        memory = ARM_MEMORY.search(i.operands)
        return Arm.general(memory[1]) if memory else None

    @staticmethod
    def general(text):
        return ["sp" if r == "sp" else "x" + r[1:] for r in ARM_GENERAL.findall(text)]

    @staticmethod
    def on_stack(i, stack):
        if ARM_KEEPS.match(i.mnemonic) and not i.mnemonic.startswith("bi"):
            return stack
        operands = split(i.operands)
        count = 2 if i.mnemonic.startswith("ldp") else 1
        to = {r for o in operands[:count] for r in Arm.general(o)} - {"sp"}
        copied = i.mnemonic in ("mov", "add", "sub", "and", "csel")
        if copied and any(r in stack for o in operands[1:] for r in Arm.general(o)):
            return stack | to
        return stack - to

    @staticmethod
    def is_fma(i):
        return i.mnemonic in ("fmla", "fmls", "bfmlalb", "bfmlalt", "sdot", "smull")

    @staticmethod
    def is_move(i):
        return i.mnemonic == "mov" and bool(re.fullmatch(r"v\d+\.16b, ?v\d+\.16b", i.operands))

    @staticmethod
    def is_store(i):
        return i.mnemonic.startswith("st")


def split(operands):
    """At the commas outside brackets."""
    return [o.strip() for o in re.split(r",(?![^([{]*[)\]}])", operands)] if operands else []


# ---- Disassembly ----

Function = namedtuple("Function", "file name instructions")


def parse(listing):
    """The functions in the output of objdump -dr --no-show-raw-insn for an archive."""
    functions, file = [], ""
    for line in listing.splitlines():
        if match := re.match(r"(.*):\s+file format ", line):
            file = os.path.basename(match[1])
        elif match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            functions.append(Function(file, match[1], []))
        elif re.match(r"\s+[0-9a-f]+: R_", line):
            body = functions[-1].instructions
            body[-1] = body[-1]._replace(external=True)
        elif match := re.match(r"\s+([0-9a-f]+):\t(.*)", line):
            text = X86_PREFIX.sub("", re.sub(r"\s+(#|//) .*", "", match[2])).split(None, 1)
            operands = text[1].strip() if len(text) > 1 else ""
            target = re.search(r"(?:^|[ ,])([0-9a-f]+) <", operands)
            functions[-1].instructions.append(
                Instruction(int(match[1], 16), text[0], operands, int(target[1], 16) if target else None, False)
            )
    return functions


def read(library):
    """(X86 or Arm, the functions), or None where no objdump here knows the library's architecture."""
    for tool in ("objdump", "x86_64-linux-gnu-objdump", "aarch64-linux-gnu-objdump"):
        if shutil.which(tool):
            run = subprocess.run([tool, "-dr", "--no-show-raw-insn", library], capture_output=True, text=True)
            if run.returncode == 0:
                return machine_of(run.stdout), parse(run.stdout)
            if "architecture UNKNOWN" not in run.stderr:
                sys.exit(f"{tool}: {run.stderr.strip()}")
    return None


def machine_of(listing):
    return Arm if re.search(r"file format elf64-.*aarch64", listing) else X86


# ---- Loops ----


class Undecidable(Exception):
    """Control flow that the listing does not show."""


def successors(function, machine):
    """Per index of an instruction, the indices of those that may follow."""
    body = function.instructions
    index = {i.address: n for n, i in enumerate(body)}
    follow = []
    for n, i in enumerate(body):
        after = [n + 1] if n + 1 < len(body) else []
        if machine.is_return(i):
            after = []
        elif machine.is_branch(i):
            if i.target is None and not i.external:
                raise Undecidable(f"an indirect jump at {i.address:x}")
            if machine.is_jump(i):
                after = []
            if not i.external and i.target in index:
                after.append(index[i.target])
        follow.append(after)
    return follow


def components(nodes, follow):
    """The strongly connected components, of more than a node or with an edge to itself (Tarjan, without recursion)."""
    number, low, stack, on_stack, found = {}, {}, [], set(), []
    for root in nodes:
        if root in number:
            continue
        work = [(root, iter(follow(root)))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in nodes:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(follow(other))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    part = set(stack[stack.index(node) :])
                    del stack[len(stack) - len(part) :]
                    on_stack -= part
                    if len(part) > 1 or node in follow(node):
                        found.append(part)
    return found


def inner_loops(follow):
    """Lists of indices: cycles that hold no cycle once the edges to their entries are taken out."""
    loops, reached, work = [], {0}, [0]
    while work:
        new = set(follow[work.pop()]) - reached
        reached |= new
        work += new

    def visit(nodes, cut):
        for part in components(nodes, lambda n: [s for s in follow[n] if s not in cut]):
            entries = {s for n in reached - part for s in follow[n] if s in part} or {min(part)}
            inner = len(loops)
            visit(part, cut | entries)
            if len(loops) == inner:
                loops.append(sorted(part))

    visit(reached, set())
    return sorted(loops)


def stack_addresses(function, follow, machine):
    """Per instruction, the registers that may hold an address on the stack before it."""
    start = frozenset({machine.stack_pointer})
    before = [None] * len(follow)
    before[0] = start
    work = [0]
    while work:
        n = work.pop()
        after = machine.on_stack(function.instructions[n], before[n])
        for s in follow[n]:
            merged = after if before[s] is None else before[s] | after
            if merged != before[s]:
                before[s] = merged
                work.append(s)
    return [b if b is not None else start for b in before]


Loop = namedtuple("Loop", "function body fmas loads stores moves spills scalar")


def loops_of(function, machine):
    """The inner loops that use vector registers."""
    if not function.instructions:
        return []
    follow = successors(function, machine)
    stack = stack_addresses(function, follow, machine)
    found = []
    for indices in inner_loops(follow):
        body = [function.instructions[n] for n in indices]
        count = dict.fromkeys(("fmas", "loads", "stores", "moves", "spills", "scalar"), 0)
        for n, i in zip(indices, body):
            address, vector = machine.address(i), bool(machine.vectors(i))
            count["fmas"] += machine.is_fma(i)
            count["moves"] += machine.is_move(i)
            if address is not None and any(r in stack[n] for r in address):
                count["spills" if vector else "scalar"] += 1
            elif address is not None and vector:
                count["stores" if machine.is_store(i) else "loads"] += 1
        if any(machine.vectors(i) for i in body):
            found.append(Loop(function, body, **count))
    return found


# ---- The check ----


def tile_size(function):
    """Multiply-adds per step of k of a function ISA_tile_ROWS_..., ISA_tile_rows_ROWS_... ISA_pairs_ROWS_... and so on, or None."""
    match = re.match(r"[a-z0-9_]+?_(?:tile(?:_rows|_columns(?:_dense)?|_far)?|pairs|int8|int4)((?:_\d+)+)", function.name)
    return math.prod(map(int, match[1].split("_")[1:])) if match else None


# simd/body/*.c as meson names their objects; what copies rows has nothing to compute.
BODIES = ["body_attention.c.o", "body_elementary.c.o", "body_small.c.o", "body_softmax.c.o"]


def is_checked(function):
    """A GEMM tile, or part of attention, softmax or elementary functions; not what packs, copies or drives."""
    return tile_size(function) is not None or function.file in BODIES


def limit_of(isa, function):
    """A compiler may have split or cloned the function: avx2_weights.constprop.0, avx2_online_softmax_row."""
    for limit in LIMITS:
        if limit.isa == isa and tile_size(function) is None and re.match(f"{isa}_{limit.function}(_rows?)?\\b", function.name):
            return limit
    return None


def problems_of(isa, function, loops, compiler):
    """Sentences on what is wrong with a function's loops."""
    found = []
    size, limit = tile_size(function), limit_of(isa, function)
    allowed = 0
    if limit:
        allowed = {"gcc": limit.gcc, "clang": limit.clang}.get(compiler, max(limit.gcc, limit.clang))
    if size and not any(loop.fmas for loop in loops):
        found.append("no loop with a multiply-add")
    for loop in loops:
        at = f"loop at {loop.body[0].address:x}"
        if size and loop.fmas % size:
            found.append(f"{at}: {loop.fmas} multiply-adds, which is no multiple of the tile's {size}")
        if loop.spills > allowed:
            found.append(f"{at}: {loop.spills} vector registers to or from the stack, {allowed} allowed")
    return found


COLUMNS = "{:<24}{:<18}{:>7}{:>7}{:>5}{:>6}{:>7}{:>6}{:>7}{:>15}"


def check(isa, machine, functions, compiler=None, everything=False):
    """Prints the loops and what is wrong with them; the number of problems."""
    counts = ("instr", "fma", "loads", "stores", "moves", "spills", "stack, scalar")
    print(COLUMNS.format("file", "function", "at", *counts))
    problems, tiles, computing, allowances = [], 0, set(), []
    for function in functions:
        checked = is_checked(function)
        try:
            loops = loops_of(function, machine)
        except Undecidable as why:
            if checked:
                problems.append(f"{function.name} ({function.file}): {why}")
            continue
        tiles += tile_size(function) is not None
        for loop in loops:
            if everything or tile_size(function) or loop.spills or loop.scalar:
                at = f"{loop.body[0].address:x}"
                print(COLUMNS.format(function.file, function.name, at, len(loop.body), *loop[2:]))
            if loop.fmas:
                computing.add(function.file)
            if loop.spills and checked and limit_of(isa, function) not in allowances + [None]:
                allowances.append(limit_of(isa, function))
        if checked:
            problems += [f"{function.name} ({function.file}): {p}" for p in problems_of(isa, function, loops, compiler)]
    if not tiles:
        problems.append("no GEMM tile found")
    files = {f.file for f in functions}
    needed = [] if files and "body_gemm.c.o" not in files else BODIES  # an ISA with formats of its own alone has no others
    for file in sorted({f.file for f in functions if is_checked(f)}.union(needed) - computing):
        problems.append(f"{file}: no loop with a multiply-add found")
    for limit in allowances:
        print(f"allowed in {limit.function}: {limit.gcc} with gcc, {limit.clang} with clang: {limit.why}")
    for problem in problems:
        print(f"FAIL: {problem}")
    print(f"{isa}: {tiles} tiles, {len(problems)} problems")
    return len(problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive")
    parser.add_argument("--compiler", metavar="ID", help="gcc, clang: whose limits are valid")
    parser.add_argument("--all", action="store_true", help="print the loops of all functions")
    parser.add_argument("--skip", metavar="REASON", help="do nothing but say why, and exit with 77")
    arguments = parser.parse_args()
    contents = None if arguments.skip else read(arguments.archive)
    if contents is None:
        print(f"SKIP: {arguments.skip or 'no objdump here can read ' + arguments.archive}")
        return 77
    isa = re.search(r"libattn_(\w+)\.a$", arguments.archive)[1]
    return 1 if check(isa, *contents, arguments.compiler, arguments.all) else 0


if __name__ == "__main__":
    sys.exit(main())
