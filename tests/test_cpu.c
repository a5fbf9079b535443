/* Which instruction sets the registers of known processors allow, under operating systems that save more or fewer of
 * them. */
#include "processors.h"
#include "support.h"

#define OSXSAVE (UINT32_C(1) << 27)
#define FMA     (UINT32_C(1) << 12)
#define AVX     (UINT32_C(1) << 28)
#define F16C    (UINT32_C(1) << 29)

/* XCR0 of systems that save ... */
#define XCR0_X87        UINT64_C(0x1)
#define XCR0_SSE        UINT64_C(0x3)
#define XCR0_AVX        UINT64_C(0x7)
#define XCR0_AVX_PKRU   UINT64_C(0x207)
#define XCR0_AVX512     UINT64_C(0xe7)
#define XCR0_AVX512_ALL UINT64_C(0x2e7) /* and PKRU */

static const struct attn_cpu_registers conroe = {.max_leaf = 0xa, .leaf1_ecx = 0x0000e3bd, .leaf1_edx = 0xbfebfbff};

static const struct attn_cpu_registers nehalem = {.max_leaf = 0xb, .leaf1_ecx = 0x0098e3bd, .leaf1_edx = 0xbfebfbff};

static const struct attn_cpu_registers sandy_bridge = {
    .max_leaf = 0xd, .leaf1_ecx = 0x1fbae3ff, .leaf1_edx = 0xbfebfbff, .xcr0 = XCR0_AVX};

/* AVX and FMA, no AVX2; XCR0 has AMD's LWP on top. */
static const struct attn_cpu_registers piledriver = {.max_leaf = 0xd,
                                                     .leaf1_ecx = 0x3e98320b,
                                                     .leaf1_edx = 0x178bfbff,
                                                     .leaf7_ebx = 0x00000008,
                                                     .xcr0 = UINT64_C(0x4000000000000007)};

static const struct attn_cpu_registers haswell = {
    .max_leaf = 0xd, .leaf1_ecx = 0x7ffafbff, .leaf1_edx = 0xbfebfbff, .leaf7_ebx = 0x000027ab, .xcr0 = XCR0_AVX};

static const struct attn_cpu_registers zen3 = {.max_leaf = 0x10,
                                               .leaf1_ecx = 0x7ef8320b,
                                               .leaf1_edx = 0x178bfbff,
                                               .leaf7_ebx = 0x219c97a9,
                                               .leaf7_ecx = 0x0040068c,
                                               .leaf7_edx = 0x00000010,
                                               .xcr0 = XCR0_AVX_PKRU};

static const struct attn_cpu_registers skylake_x = {.max_leaf = 0x16,
                                                    .leaf1_ecx = 0x7ffefbbf,
                                                    .leaf1_edx = 0xbfebfbff,
                                                    .leaf7_ebx = 0xd39ffffb,
                                                    .leaf7_edx = 0xbc000400,
                                                    .xcr0 = XCR0_AVX512_ALL};

/* VNNI and no BF16. */
static const struct attn_cpu_registers cascade_lake = {.max_leaf = 0x16,
                                                       .leaf1_ecx = 0x7ffefbff,
                                                       .leaf1_edx = 0xbfebfbff,
                                                       .leaf7_ebx = 0xd39ffffb,
                                                       .leaf7_ecx = 0x00000808,
                                                       .leaf7_edx = 0xbc000400,
                                                       .xcr0 = XCR0_AVX512_ALL};

static const struct attn_cpu_registers ice_lake = {.max_leaf = 0x1b,
                                                   .leaf1_ecx = 0x7ffefbff,
                                                   .leaf1_edx = 0xbfebfbff,
                                                   .leaf7_ebx = 0xf3bfbfeb,
                                                   .leaf7_ecx = 0x00405f4e,
                                                   .leaf7_edx = 0xbc040412,
                                                   .xcr0 = XCR0_AVX512_ALL};

/* And AMX-FP16, bit 21. */
#define GRANITE_RAPIDS_7_1_EAX 0x00201c30

/* CPUID leaf 0, ebx; leaf 1, eax; more are in processors.h. */
#define AMD              0x68747541
#define COOPER_LAKE      0x0005065b
#define SAPPHIRE_RAPIDS  0x000806f8
#define GRANITE_RAPIDS   0x000a06d1
#define GRANITE_RAPIDS_D 0x000a06e1
#define ZEN_4            0x00a60f12
#define ZEN_5            0x00b40f40

/* F, CD, PF and ER; no DQ, BW, VL. */
static const struct attn_cpu_registers knights_landing = {.max_leaf = 0xd,
                                                          .leaf1_ecx = 0x7ff8f3bf,
                                                          .leaf1_edx = 0xbfebfbff,
                                                          .leaf7_ebx = 0x1c0d23ab,
                                                          .leaf7_ecx = 0x00000001,
                                                          .xcr0 = XCR0_AVX512};

/* Hybrid: AVX-512 is fused off, because the efficient cores lack it. */
static const struct attn_cpu_registers alder_lake = {.max_leaf = 0x20,
                                                     .leaf1_ecx = 0x7ffafbff,
                                                     .leaf1_edx = 0xbfebfbff,
                                                     .leaf7_ebx = 0x239ca7eb,
                                                     .leaf7_ecx = 0x98c027ac,
                                                     .leaf7_edx = 0xfc1cc410,
                                                     .leaf7_1_eax = 0x00400810,
                                                     .xcr0 = XCR0_AVX_PKRU};

/* Its performance cores under the first BIOS versions. */
#define ALDER_LAKE_AVX512_EBX 0xf3bfa7eb

static const struct attn_cpu_registers zen4 = {.max_leaf = 0x10,
                                               .leaf1_ecx = 0x7ef8320b,
                                               .leaf1_edx = 0x178bfbff,
                                               .leaf7_ebx = 0xf1bf97a9,
                                               .leaf7_ecx = 0x00405fce,
                                               .leaf7_edx = 0x10000010,
                                               .leaf7_1_eax = 0x00000020,
                                               .xcr0 = XCR0_AVX512_ALL};

static const struct attn_cpu_registers zen5 = {.max_leaf = 0x10,
                                               .leaf1_ecx = 0x7ef8320b,
                                               .leaf1_edx = 0x178bfbff,
                                               .leaf7_ebx = 0xf1bf97a9,
                                               .leaf7_ecx = 0x18405fce,
                                               .leaf7_edx = 0x10000110,
                                               .leaf7_1_eax = 0x00000030,
                                               .xcr0 = XCR0_AVX512_ALL};

/* Arm: FP and ASIMD are bits 0 and 1 of HWCAP, ASIMDDP is bit 20, SVE bit 22; I8MM and BF16 are bits 13 and 14 of
 * HWCAP2. */
static const struct attn_cpu_registers cortex_a53 = {.hwcap = 0xff};
static const struct attn_cpu_registers neoverse_n1 = {.hwcap = 0x10119fff};
static const struct attn_cpu_registers neoverse_v1 = {.hwcap = 0x10519fff, .hwcap2 = 0x1f381, .sve_bytes = 32};
static const struct attn_cpu_registers neoverse_v2 = {.hwcap = 0xfff3ffff, .hwcap2 = 0x1f3ff, .sve_bytes = 16};
/* Under Linux. */
static const struct attn_cpu_registers apple_m1 = {.hwcap = 0xffb3ffff, .hwcap2 = 0x181};
static const struct attn_cpu_registers apple_m2 = {.hwcap = 0xffb3ffff, .hwcap2 = 0x6181};
static const struct attn_cpu_registers arm_outside_linux = {.hwcap = 0x3};
static const struct attn_cpu_registers arm_without_fp = {.hwcap = 0x880};

/* Sets of ISAs: bit i is ISA number i. */
#define SCALAR      (1u << ATTN_ISA_SCALAR)
#define AVX2        (SCALAR | 1u << ATTN_ISA_AVX2)
#define AVX_VNNI    (1u << ATTN_ISA_AVX2_VNNI) /* beside the others: what has AVX-512 may lack it */
#define AVX512      (AVX2 | 1u << ATTN_ISA_AVX512)
#define AVX512_VNNI (AVX512 | 1u << ATTN_ISA_AVX512_VNNI)
#define AVX512_BF16 (AVX512_VNNI | 1u << ATTN_ISA_AVX512_BF16)
#define AMX         (AVX512_BF16 | 1u << ATTN_ISA_AMX)
#define NEON        (SCALAR | 1u << ATTN_ISA_NEON)
#define NEON_DOT    (NEON | 1u << ATTN_ISA_NEON_DOT)
#define NEON_MM     (NEON_DOT | 1u << ATTN_ISA_NEON_MM)
#define SVE         (1u << ATTN_ISA_SVE256) /* likewise */

static void check(const char *what, struct attn_cpu_registers registers, unsigned isas) {
    test_case("%s", what);
    unsigned supported = 0;
    for (int isa = 0; isa < ATTN_ISA_COUNT; isa++)
        supported |= (unsigned)attn_cpu_supports(&registers, (attn_isa)isa) << isa;
    assert_int_equal(supported, isas);
}

static struct attn_cpu_registers with_xcr0(struct attn_cpu_registers registers, uint64_t xcr0) {
    registers.xcr0 = xcr0;
    return registers;
}

static struct attn_cpu_registers with_sve_bytes(struct attn_cpu_registers registers, uint64_t bytes) {
    registers.sve_bytes = bytes;
    return registers;
}

static struct attn_cpu_registers without_leaf1(struct attn_cpu_registers registers, uint32_t bits) {
    registers.leaf1_ecx &= ~bits;
    return registers;
}

static struct attn_cpu_registers with_leaf7(struct attn_cpu_registers registers, uint32_t ebx) {
    registers.leaf7_ebx = ebx;
    return registers;
}

static struct attn_cpu_registers with_leaf7_1(struct attn_cpu_registers registers, uint32_t eax) {
    registers.leaf7_1_eax = eax;
    return registers;
}

static struct attn_cpu_registers with_permission(struct attn_cpu_registers registers, int amx_permission) {
    registers.amx_permission = amx_permission;
    return registers;
}

static void test_processors(void **state) {
    (void)state;
    check("nothing known", (struct attn_cpu_registers){0}, SCALAR);
    check("Conroe, before XSAVE and leaf 7", conroe, SCALAR);
    check("Nehalem, before AVX", nehalem, SCALAR);
    check("Sandy Bridge, AVX without AVX2 and FMA", sandy_bridge, SCALAR);
    check("Piledriver, AVX and FMA without AVX2", piledriver, SCALAR);
    check("Haswell", haswell, AVX2);
    check("Zen 3", zen3, AVX2);
    check("Knights Landing, AVX-512 F without VL", knights_landing, AVX2);
    check("Skylake-X", skylake_x, AVX512);
    check("Cascade Lake", cascade_lake, AVX512_VNNI);
    check("Ice Lake", ice_lake, AVX512_VNNI);
    check("Sapphire Rapids", sapphire_rapids, AMX | AVX_VNNI);
    check("Granite Rapids", with_leaf7_1(sapphire_rapids, GRANITE_RAPIDS_7_1_EAX), AMX | AVX_VNNI);
    check("Zen 4", zen4, AVX512_BF16);
    check("Zen 5", zen5, AVX512_BF16 | AVX_VNNI);
    check("Cortex-A53", cortex_a53, NEON);
    check("Neoverse N1", neoverse_n1, NEON_DOT);
    check("Neoverse V1, SVE of 256 bits", neoverse_v1, NEON_MM | SVE);
    check("Neoverse V2, SVE of 128 bits", neoverse_v2, NEON_MM);
    check("Apple M1", apple_m1, NEON_DOT);
    check("Apple M2", apple_m2, NEON_MM);
    check("SVE of 512 bits", with_sve_bytes(neoverse_v1, 64), NEON_MM);
    check("AArch64 whose system does not save SVE", with_sve_bytes(neoverse_n1, 32), NEON_DOT);
    check("AArch64 whose system says nothing", arm_outside_linux, NEON);
    check("Arm without floating point", arm_without_fp, SCALAR);
}

static void test_operating_system(void **state) {
    (void)state;
    check("Haswell, the system does not use XSAVE", with_xcr0(without_leaf1(haswell, OSXSAVE), 0), SCALAR);
    check("Haswell, OSXSAVE clear over a stale XCR0", without_leaf1(haswell, OSXSAVE), SCALAR);
    check("Haswell, x87 saved only", with_xcr0(haswell, XCR0_X87), SCALAR);
    check("Haswell, upper halves of ymm not saved", with_xcr0(haswell, XCR0_SSE), SCALAR);
    check("Haswell, ymm without xmm", with_xcr0(haswell, 0x5), SCALAR);
    check("Skylake-X, the system does not use XSAVE", with_xcr0(without_leaf1(skylake_x, OSXSAVE), 0), SCALAR);
    check("Skylake-X, ymm not saved", with_xcr0(skylake_x, XCR0_SSE), SCALAR);
    check("Skylake-X, zmm not saved", with_xcr0(skylake_x, XCR0_AVX), AVX2);
    check("Skylake-X, zmm saved and ymm not", with_xcr0(skylake_x, XCR0_AVX512 & ~XCR0_AVX), SCALAR);
    check("Zen 4, zmm not saved", with_xcr0(zen4, XCR0_AVX_PKRU), AVX2);
    check("Zen 5, zmm not saved", with_xcr0(zen5, XCR0_AVX_PKRU), AVX2 | AVX_VNNI);
    check("Zen 5, ymm not saved", with_xcr0(zen5, XCR0_SSE), SCALAR);
    for (unsigned bit = 5; bit <= 7; bit++)
        check("Skylake-X, one of XCR0's three AVX-512 bits clear",
              with_xcr0(skylake_x, XCR0_AVX512 & ~(UINT64_C(1) << bit)), AVX2);
}

static void test_hybrid(void **state) {
    (void)state;
    check("Alder Lake", alder_lake, AVX2 | AVX_VNNI);
    check("Alder Lake, efficient core, zmm saved for the others", with_xcr0(alder_lake, XCR0_AVX512_ALL),
          AVX2 | AVX_VNNI);
    check("Alder Lake, AVX-512 in CPUID, zmm not saved", with_leaf7(alder_lake, ALDER_LAKE_AVX512_EBX),
          AVX2 | AVX_VNNI);
    check("Alder Lake, performance core with AVX-512",
          with_xcr0(with_leaf7(alder_lake, ALDER_LAKE_AVX512_EBX), XCR0_AVX512_ALL), AVX512 | AVX_VNNI);
}

static void test_amx(void **state) {
    (void)state;
    const unsigned without = AVX512_BF16 | AVX_VNNI;
    check("Sapphire Rapids, nobody asked for tiles", with_permission(sapphire_rapids, 0), without);
    check("Sapphire Rapids, an old kernel refuses", with_permission(sapphire_rapids, -22 /* EINVAL */), without);
    check("Sapphire Rapids, signal stacks are too small", with_permission(sapphire_rapids, -28 /* ENOSPC */), without);
    check("Sapphire Rapids, tiles not saved", with_xcr0(sapphire_rapids, XCR0_AVX512_ALL), without);
    for (unsigned bit = 17; bit <= 18; bit++)
        check("Sapphire Rapids, one of XCR0's two AMX bits clear",
              with_xcr0(sapphire_rapids, XCR0_TILES & ~(UINT64_C(1) << bit)), without);
    static const unsigned bundle[] = {22 /* BF16 */, 24 /* TILE */, 25 /* INT8 */};
    for (size_t i = 0; i < sizeof bundle / sizeof *bundle; i++) {
        struct attn_cpu_registers hidden = sapphire_rapids;
        hidden.leaf7_edx &= ~(1u << bundle[i]);
        check("Sapphire Rapids, one of AMX BF16, TILE, INT8 hidden", hidden, without);
    }
    check("Sapphire Rapids, AVX512_BF16 hidden", with_leaf7_1(sapphire_rapids, 0x10), AVX512_VNNI | AVX_VNNI);
    check("Sapphire Rapids, zmm not saved", with_xcr0(sapphire_rapids, (XCR0_TILES & ~XCR0_AVX512) | XCR0_AVX),
          AVX2 | AVX_VNNI);
    check("Zen 5, a permission without the instructions", with_permission(zen5, ATTN_AMX_GRANTED), without);
}

static void test_incomplete_sets(void **state) {
    (void)state;
    check("Haswell, FMA hidden by a hypervisor", without_leaf1(haswell, FMA), SCALAR);
    check("Skylake-X, FMA hidden by a hypervisor", without_leaf1(skylake_x, FMA), SCALAR);
    check("Haswell, F16C hidden by a hypervisor", without_leaf1(haswell, F16C), SCALAR);
    check("Skylake-X, F16C hidden by a hypervisor", without_leaf1(skylake_x, F16C), SCALAR);
    check("Haswell, AVX hidden by a hypervisor", without_leaf1(haswell, AVX), SCALAR);
    check("Skylake-X, AVX2 hidden by a hypervisor", with_leaf7(skylake_x, skylake_x.leaf7_ebx & ~(1u << 5)), SCALAR);
    static const unsigned bundle[] = {16 /* F */, 17 /* DQ */, 30 /* BW */, 31 /* VL */};
    for (size_t i = 0; i < sizeof bundle / sizeof *bundle; i++)
        check("Skylake-X, one of F, DQ, BW, VL hidden", with_leaf7(skylake_x, skylake_x.leaf7_ebx & ~(1u << bundle[i])),
              AVX2);

    struct attn_cpu_registers no_vnni = zen4;
    no_vnni.leaf7_ecx &= ~(1u << 11);
    check("Zen 4, AVX512_VNNI hidden, which AVX512_BF16 stands on", no_vnni, AVX512);
    check("Zen 4, AVX512_BF16 hidden", with_leaf7_1(zen4, 0), AVX512_VNNI);
    for (unsigned bit = 13; bit <= 14; bit++) {
        struct attn_cpu_registers one = apple_m2;
        one.hwcap2 &= ~(UINT64_C(1) << bit);
        check("Apple M2, one of I8MM, BF16 hidden", one, NEON_DOT);
    }
    struct attn_cpu_registers no_dot = apple_m2;
    no_dot.hwcap &= ~(UINT64_C(1) << 20);
    check("Apple M2, dot products hidden, which I8MM and BF16 stand on", no_dot, NEON);

    /* Asked for a leaf that it does not have, an Intel processor answers with its last leaf. */
    struct attn_cpu_registers limited = skylake_x;
    limited.max_leaf = 3;
    check("Skylake-X, CPUID limited by the BIOS", limited, SCALAR);
}

static void check_pairs(const char *what, uint32_t vendor, uint32_t leaf1_eax, bool slow) {
    test_case("%s", what);
    const struct attn_cpu_registers registers = {.vendor = vendor, .leaf1_eax = leaf1_eax};
    assert_int_equal(attn_cpu_is_slow_at_pairs(&registers), slow);
}

static void test_pairs(void **state) {
    (void)state;
    check_pairs("Sapphire Rapids", INTEL, SAPPHIRE_RAPIDS, true);
    check_pairs("Emerald Rapids", INTEL, EMERALD_RAPIDS, true);
    check_pairs("Granite Rapids", INTEL, GRANITE_RAPIDS, true);
    check_pairs("Granite Rapids D", INTEL, GRANITE_RAPIDS_D, true);
    check_pairs("Sapphire Rapids, another stepping", INTEL, SAPPHIRE_RAPIDS & ~0xfu, true);
    check_pairs("Cooper Lake", INTEL, COOPER_LAKE, false);
    check_pairs("Zen 4", AMD, ZEN_4, false);
    check_pairs("Zen 5", AMD, ZEN_5, false);
    check_pairs("AMD with the number of Sapphire Rapids", AMD, SAPPHIRE_RAPIDS, false);
    check_pairs("another family with the model of Sapphire Rapids", INTEL, SAPPHIRE_RAPIDS + 0x900, false);
    check_pairs("the model's lower half alone", INTEL, SAPPHIRE_RAPIDS & 0xffff, false);
    check_pairs("nothing known", 0, 0, false);
}

static void test_no_isa(void **state) {
    (void)state;
    assert_false(attn_cpu_supports(&skylake_x, ATTN_ISA_BEST));
    assert_false(attn_cpu_supports(&skylake_x, ATTN_ISA_COUNT));
}

/* What is read of this machine is possible, and the compiler's own check agrees where it has one. */
static void test_this_machine(void **state) {
    (void)state;
    struct attn_cpu_registers r;
    attn_cpu_read(&r);
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    assert_true(r.max_leaf >= 1);
    assert_int_equal(r.leaf1_edx >> 25 & 3, 3); /* SSE and SSE2: every x86-64 */
    assert_int_equal(attn_cpu_supports(&r, ATTN_ISA_AVX2), avx2);
    assert_int_equal(attn_cpu_supports(&r, ATTN_ISA_AVX512), avx2 && avx512);
    bool vnni = __builtin_cpu_supports("avx512vnni"), bf16 = __builtin_cpu_supports("avx512bf16");
    assert_int_equal(attn_cpu_supports(&r, ATTN_ISA_AVX512_VNNI), avx2 && avx512 && vnni);
    assert_int_equal(attn_cpu_supports(&r, ATTN_ISA_AVX512_BF16), avx2 && avx512 && vnni && bf16);
    if (r.amx_permission)
        assert_int_equal(r.xcr0 >> 17 & 3, 3);
    assert_int_equal(r.hwcap, 0);
#elif defined(__aarch64__)
    assert_true(attn_cpu_supports(&r, ATTN_ISA_NEON)); /* this program's C library uses it */
    assert_int_equal(r.max_leaf, 0);
    assert_int_equal(r.xcr0, 0);
#endif
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        assert_int_equal(attn_isa_supported((attn_isa)isa),
                         attn_isa_built((attn_isa)isa) && attn_cpu_supports(&r, (attn_isa)isa));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processors), cmocka_unit_test(test_operating_system), cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_amx),        cmocka_unit_test(test_incomplete_sets),  cmocka_unit_test(test_no_isa),
        cmocka_unit_test(test_pairs),      cmocka_unit_test(test_this_machine),
    };
    return test_run(tests);
}
