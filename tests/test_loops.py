"""What tools/loops.py finds in listings whose loops and spills are known: that the test `loops` can fail."""
import contextlib
import importlib.util
import io
import sys
import unittest

sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("loops", sys.argv.pop(1))
loops = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loops)


def listing(architecture, **files):
    """As objdump prints `file={function: lines}`. A line is "label: mnemonic operands"; labels become addresses."""
    text = ""
    for file, functions in files.items():
        text += f"\n{file}.c.o:     file format elf64-{architecture}\n\nDisassembly of section .text:\n"
        for name, lines in functions.items():
            address, body = {}, []
            for n, line in enumerate(lines):
                label, _, instruction = line.rpartition(": ")
                address[label] = n * 4
                body.append(instruction)
            text += f"\n0000000000000000 <{name}>:\n"
            for n, instruction in enumerate(body):
                mnemonic, _, operands = instruction.partition(" ")
                head, _, last = operands.rpartition(" ")
                if last in address:
                    operands = f"{head} {address[last]:x} <{name}+0x{address[last]:x}>"
                text += f"  {n * 4:x}:\t{mnemonic} {operands}\n"
    return text


def x86(**files):
    return listing("x86-64", **files)


def arm(**files):
    return listing("littleaarch64", **files)


def loops_in(text):
    machine = loops.machine_of(text)
    return [loop for function in loops.parse(text) for loop in loops.loops_of(function, machine)]


def problems(isa, text, compiler="gcc"):
    """What the check prints as failures."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        count = loops.check(isa, loops.machine_of(text), loops.parse(text), compiler)
    found = [line for line in out.getvalue().splitlines() if line.startswith("FAIL: ")]
    assert count == len(found)
    return found


TILE = [
    "push %rbp",
    "mov %rsp,%rbp",
    "vmovups %ymm9,-0x40(%rbp)",
    "top: vmovups (%rdi),%ymm0",
    "vbroadcastss (%rsi),%ymm2",
    "vfmadd231ps %ymm0,%ymm2,%ymm3",
    "vfmadd231ps 0x20(%rdi),%ymm2,%ymm4",
    "add $0x40,%rdi",
    "cmp %rdi,%rdx",
    "jne top",
    "vmovups -0x40(%rbp),%ymm9",
    "ret",
]
ARM_TILE = [
    "stp x29, x30, [sp, #-96]!",
    "mov x29, sp",
    "top: ldp q0, q1, [x1], #32",
    "ldr q2, [x2], #4",
    "fmla v3.4s, v0.4s, v2.s[0]",
    "fmla v4.4s, v1.4s, v2.s[0]",
    "cmp x1, x3",
    "b.ne top",
    "ldp x29, x30, [sp], #96",
    "ret",
]


def inside(lines, *more):
    """The lines with more after the loop's first."""
    at = next(n for n, line in enumerate(lines) if line.startswith("top: "))
    return lines[: at + 1] + list(more) + lines[at + 1 :]


class Spills(unittest.TestCase):
    def one(self, text):
        (loop,) = loops_in(text)
        return loop

    def test_counts(self):
        loop = self.one(x86(body_gemm={"avx2_tile_1_1_2": TILE}))
        self.assertEqual((len(loop.body), loop.fmas, loop.loads, loop.stores), (7, 2, 3, 0))
        self.assertEqual((loop.moves, loop.spills, loop.scalar), (0, 0, 0))
        loop = self.one(arm(body_gemm={"neon_tile_1_1_2": ARM_TILE}))
        self.assertEqual((len(loop.body), loop.fmas, loop.loads, loop.spills), (6, 2, 2, 0))

    def test_x86_stack(self):
        for spill in (
            "vmovups %ymm3,-0x60(%rbp)",
            "vmovaps 0x20(%rsp),%ymm3",
            "vmovaps %zmm20,(%rsp)",
            "vfmadd231ps 0x20(%rsp,%rax,4),%ymm2,%ymm5",
            "vbroadcastss 0x4(%rsp),%ymm5",
        ):
            self.assertEqual(self.one(x86(f={"f": inside(TILE, spill)})).spills, 1, spill)

    def test_x86_not_stack(self):
        for other in ("vmovups %ymm3,(%r8)", "vmovaps %ymm3,%ymm5", "lea 0x20(%rsp),%r8", "vmovups 0x0(%rip),%ymm3"):
            self.assertEqual(self.one(x86(f={"f": inside(TILE, other)})).spills, 0, other)
        self.assertEqual(self.one(x86(f={"f": inside(TILE, "mov 0x8(%rsp),%r9")})).scalar, 1)

    def test_x86_rbp_without_frame(self):
        lines = ["mov 0x10(%rdi),%rbp"] + inside(TILE[3:], "vmovups %ymm3,(%rbp)")
        self.assertEqual(self.one(x86(f={"f": lines})).spills, 0)

    def test_x86_address_in_another_register(self):
        spill = "vmovups %ymm3,(%r8)"
        for first in (["lea 0x20(%rsp),%r8"], ["mov %rsp,%r9", "add $0x40,%r9", "mov %r9,%r8"]):
            self.assertEqual(self.one(x86(f={"f": first + inside(TILE, spill)})).spills, 1, first)
        for first in (["lea 0x20(%rsp),%r8", "mov (%rdi),%r8"], ["mov %rdi,%r8", "add 0x20(%rbp),%r8"]):
            self.assertEqual(self.one(x86(f={"f": TILE[:2] + first + inside(TILE[3:], spill)})).spills, 0, first)

    def test_arm_stack(self):
        for spill in ("str q3, [sp, #80]", "ldp q3, q4, [x29, #16]", "st1 {v3.4s, v4.4s}, [sp]"):
            self.assertEqual(self.one(arm(f={"f": inside(ARM_TILE, spill)})).spills, 1, spill)
        for other in ("str q3, [x4, #80]", "mov v3.16b, v4.16b", "add x4, sp, #16"):
            self.assertEqual(self.one(arm(f={"f": inside(ARM_TILE, other)})).spills, 0, other)
        self.assertEqual(self.one(arm(f={"f": ["add x4, sp, #16"] + inside(ARM_TILE, "str q3, [x4]")})).spills, 1)


class InnerLoops(unittest.TestCase):
    def test_outer_loop_may_spill(self):
        lines = ["row: vmovups (%rsp),%ymm5"] + TILE[3:10] + ["dec %rcx", "jne row", "ret"]
        (loop,) = loops_in(x86(f={"f": lines}))
        self.assertEqual((loop.body[0].address, loop.spills), (4, 0))

    def test_block_out_of_line(self):
        lines = inside(TILE, "test %eax,%eax", "jne cold", "warm: nop") + ["cold: vmovups %ymm3,(%rsp)", "jmp warm"]
        (loop,) = loops_in(x86(f={"f": lines}))
        self.assertEqual((len(loop.body), loop.spills), (12, 1))

    def test_padding_is_no_entry(self):
        # An outer loop around one that is entered in its middle, with padding that nothing reaches before its top.
        lines = ["row: vmovups (%rsp),%ymm5", "jmp test", "nop"]
        lines += ["top: vfmadd231ps (%rdi),%ymm2,%ymm3", "test: cmp %rdi,%rdx", "jne top", "dec %rcx", "jne row", "ret"]
        (loop,) = loops_in(x86(f={"f": lines}))
        self.assertEqual((len(loop.body), loop.fmas, loop.spills), (3, 1, 0))

    def test_jump_elsewhere(self):
        # A relocation: the address printed is not yet that of the callee.
        text = x86(f={"f": ["top: vmovups %ymm3,(%rsp)", "jmp top"]})
        self.assertEqual(len(loops_in(text)), 1)
        self.assertEqual(loops_in(text + "\t\t\t5: R_X86_64_PLT32\tmemset-0x4\n"), [])


class Check(unittest.TestCase):
    EXP = ["top: vfmadd231ps %ymm1,%ymm2,%ymm3", "dec %rax", "jne top", "ret"]

    OTHERS = dict(
        body_softmax={"softmax_passes": EXP}, body_small={"small_output": EXP}, body_elementary={"exp_array": EXP}
    )

    def listing(self, tile=TILE, name="avx2_tile_1_1_2", exp=EXP):
        return x86(body_gemm={name: tile}, body_attention={"avx2_online_softmax": exp}, **self.OTHERS)

    def test_good(self):
        self.assertEqual(problems("avx2", self.listing()), [])

    def test_spill_in_tile(self):
        (problem,) = problems("avx2", self.listing(inside(TILE, "vmovups %ymm3,(%rsp)")))
        self.assertIn("avx2_tile_1_1_2", problem)
        self.assertIn("1 vector registers to or from the stack, 0 allowed", problem)
        text = arm(body_gemm={"neon_tile_1_1_2.constprop.0": inside(ARM_TILE, "str q3, [sp, #80]")})
        self.assertTrue(any("1 vector registers" in problem for problem in problems("neon", text)))

    def test_other_tiles(self):
        for name in ("avx2_tile_rows_1_2", "avx2_tile_columns_1_1_2", "avx2_tile_far_1_2"):
            self.assertEqual(problems("avx2", self.listing(name=name)), [])
            self.assertEqual(len(problems("avx2", self.listing(inside(TILE, "vmovups %ymm3,(%rsp)"), name))), 1)

    def test_isa_of_pairs_alone(self):
        pair = [line.replace("vfmadd231ps", "vdpbf16ps") for line in TILE]
        self.assertEqual(problems("avx512_bf16", x86(body_gemm_pairs={"avx512_bf16_pairs_1_2": pair})), [])
        spilt = inside(pair, "vmovups %ymm3,(%rsp)")
        self.assertEqual(len(problems("avx512_bf16", x86(body_gemm_pairs={"avx512_bf16_pairs_1_2": spilt}))), 1)

    def test_limits(self):
        limit = next(limit for limit in loops.LIMITS if limit[:2] == ("avx2", "online_softmax"))
        for compiler, allowed in (("gcc", limit.gcc), ("clang", limit.clang)):
            for count in (allowed, allowed + 1):
                text = self.listing(exp=inside(self.EXP, *["vmovups %ymm3,(%rsp)"] * count))
                self.assertEqual(len(problems("avx2", text, compiler)), count - allowed)

    def test_other_functions_have_no_limit(self):
        text = self.listing() + x86(body_attention={"avx2_merge": inside(self.EXP, "vmovups %ymm3,(%rsp)")})
        self.assertEqual(len(problems("avx2", text)), 1)
        text = self.listing() + x86(body_copy={"avx2_copy": inside(self.EXP, "vmovups %ymm3,(%rsp)")})
        self.assertEqual(problems("avx2", text), [])

    def test_nothing_to_check(self):
        self.assertIn("FAIL: no GEMM tile found", problems("avx2", self.listing(name="other")))
        self.assertEqual(len(problems("avx2", self.listing(exp=["ret"]))), 1)
        self.assertEqual(len(problems("avx2", "")), 1 + len(loops.BODIES))
        (problem,) = problems("avx2", x86(body_gemm={"avx2_tile_1_1_2": TILE}, **self.OTHERS))
        self.assertIn("body_attention.c.o: no loop", problem)
        straight = [line for line in TILE if "jne" not in line]
        self.assertTrue(any("no loop with a multiply-add" in p for p in problems("avx2", self.listing(straight))))

    def test_wrong_number_of_multiply_adds(self):
        (problem,) = problems("avx2", self.listing(name="avx2_tile_2_1_2"))
        self.assertIn("2 multiply-adds, which is no multiple of the tile's 4", problem)

    def test_indirect_jump(self):
        found = problems("avx2", self.listing(inside(TILE, "notrack jmp *%rax")))
        self.assertTrue(any("an indirect jump" in problem for problem in found))


if __name__ == "__main__":
    unittest.main()
