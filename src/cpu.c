#define _GNU_SOURCE 1 /* syscall */
#include "cpu.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#include <sys/prctl.h>
#endif

#define BIT(n) (UINT32_C(1) << (n))

/* CPUID leaf 1, ecx */
#define FMA     BIT(12)
#define OSXSAVE BIT(27)
#define AVX     BIT(28)
#define F16C    BIT(29)

/* CPUID leaf 7, ebx */
#define AVX2     BIT(5)
#define AVX512F  BIT(16)
#define AVX512DQ BIT(17)
#define AVX512BW BIT(30)
#define AVX512VL BIT(31)
#define AVX512   (AVX512F | AVX512DQ | AVX512BW | AVX512VL)

/* CPUID leaf 7, ecx */
#define AVX512_VNNI BIT(11)

/* CPUID leaf 7, edx */
#define AMX_BF16 BIT(22)
#define AMX_TILE BIT(24)
#define AMX_INT8 BIT(25)
#define AMX      (AMX_BF16 | AMX_TILE | AMX_INT8)

/* CPUID leaf 7, subleaf 1, eax */
#define AVX_VNNI    BIT(4)
#define AVX512_BF16 BIT(5)

/* XCR0: the registers that the operating system saves */
#define XMM_YMM   (BIT(1) | BIT(2))
#define MASKS_ZMM (BIT(5) | BIT(6) | BIT(7)) /* k0-7, upper halves of zmm0-15, zmm16-31 */
#define TILES     (BIT(17) | BIT(18))        /* TILECFG, TILEDATA */

/* AT_HWCAP */
#define FP      BIT(0)
#define ASIMD   BIT(1)
#define ASIMDDP BIT(20)
#define SVE     BIT(22)

/* AT_HWCAP2 */
#define I8MM BIT(13)
#define BF16 BIT(14)

/* Of what prctl says of SVE, the bytes of a register. */
#define SVE_BYTES 0xffff

static bool all_set(uint64_t value, uint64_t bits) {
    return (value & bits) == bits;
}

/* All or none: code compiled for avx2 uses AVX2, FMA and F16C, which every processor with AVX2 has. */
static bool supports_avx2(const struct attn_cpu_registers *r) {
    return r->max_leaf >= 7 && all_set(r->leaf1_ecx, OSXSAVE | AVX | FMA | F16C) && all_set(r->xcr0, XMM_YMM) &&
           all_set(r->leaf7_ebx, AVX2);
}

static bool supports_avx2_vnni(const struct attn_cpu_registers *r) {
    return supports_avx2(r) && all_set(r->leaf7_1_eax, AVX_VNNI);
}

/* All features or none: code compiled for avx512 uses F, BW, DQ and VL, and what avx2 needs. */
static bool supports_avx512(const struct attn_cpu_registers *r) {
    return supports_avx2(r) && all_set(r->xcr0, MASKS_ZMM) && all_set(r->leaf7_ebx, AVX512);
}

static bool supports_avx512_vnni(const struct attn_cpu_registers *r) {
    return supports_avx512(r) && all_set(r->leaf7_ecx, AVX512_VNNI);
}

static bool supports_avx512_bf16(const struct attn_cpu_registers *r) {
    return supports_avx512_vnni(r) && all_set(r->leaf7_1_eax, AVX512_BF16);
}

/* All that AMX needs but the permission. */
static bool has_amx(const struct attn_cpu_registers *r) {
    return supports_avx512_bf16(r) && all_set(r->leaf7_edx, AMX) && all_set(r->xcr0, TILES);
}

static bool supports_neon_dot(const struct attn_cpu_registers *r) {
    return all_set(r->hwcap, ASIMD | ASIMDDP);
}

bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa) {
    switch (isa) {
    case ATTN_ISA_SCALAR:
        return true;
    case ATTN_ISA_AVX2:
        return supports_avx2(registers);
    case ATTN_ISA_AVX2_VNNI:
        return supports_avx2_vnni(registers);
    case ATTN_ISA_AVX512:
        return supports_avx512(registers);
    case ATTN_ISA_AVX512_VNNI:
        return supports_avx512_vnni(registers);
    case ATTN_ISA_AVX512_BF16:
        return supports_avx512_bf16(registers);
    case ATTN_ISA_AMX:
        return has_amx(registers) && registers->amx_permission == ATTN_AMX_GRANTED;
    case ATTN_ISA_NEON:
        return all_set(registers->hwcap, ASIMD);
    case ATTN_ISA_NEON_DOT:
        return supports_neon_dot(registers);
    case ATTN_ISA_NEON_MM:
        return supports_neon_dot(registers) && all_set(registers->hwcap2, I8MM | BF16);
    case ATTN_ISA_SVE256:
        return all_set(registers->hwcap, ASIMD | SVE) && registers->sve_bytes == 256 / 8;
    case ATTN_ISA_BEST:
    case ATTN_ISA_COUNT:
        break;
    }
    return false;
}

/* Models of Intel's family 6. Golden Cove begins a VDPBF16PS every other cycle and two multiply-adds in each; GFLOP/s
 * of both with 512 bits:
 *   Sapphire Rapids  80 and 159, 115 and 230   github.com/pigirons/cpufp, benchmark_result/x64
 *   Emerald Rapids   89 and 177                measured; half as fast in github.com/libxsmm/tpp-mlir/pull/1025 too
 *   Granite Rapids   no figure was found: its cores follow these
 * Zen 5 has 708 and 354 (cpufp), Zen 4 is twice as fast too (github.com/iree-org/iree/pull/15089). Of Cooper Lake,
 * model 0x55, no figure was found. */
static const uint8_t slow_at_pairs[] = {0x8f /* Sapphire Rapids */, 0xcf /* Emerald Rapids */,
                                        0xad /* Granite Rapids */, 0xae /* Granite Rapids D */};

bool attn_cpu_is_slow_at_pairs(const struct attn_cpu_registers *registers) {
    const uint32_t intel = 0x756e6547, eax = registers->leaf1_eax; /* "Genu" */
    uint32_t family = eax >> 8 & 0xf, model = (eax >> 4 & 0xf) | (eax >> 12 & 0xf0);
    for (size_t i = 0; i < sizeof slow_at_pairs && registers->vendor == intel && family == 6; i++)
        if (slow_at_pairs[i] == model)
            return true;
    return false;
}

#if defined(__x86_64__)
/* In assembly, because the intrinsic needs -mxsave. */
static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux saves TILEDATA, 8 KiB of each thread, only for processes that have asked for it: without permission the
 * first tile instruction is a SIGILL. Old kernels, seccomp and alternate signal stacks too small for the registers
 * refuse. */
static int ask_for_amx(void) {
#if defined(__linux__)
    const int request = 0x1023,
              tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: old headers lack the names */
    int before = errno;
    int answer = syscall(SYS_arch_prctl, request, tile_data) == 0 ? ATTN_AMX_GRANTED : -errno;
    errno = before;
    return answer;
#else
    return 0;
#endif
}

void attn_cpu_read(struct attn_cpu_registers *registers) {
    struct attn_cpu_registers r = {0};
    uint32_t ebx, ecx, edx, subleaves;
    __cpuid(0, r.max_leaf, r.vendor, ecx, edx);
    __cpuid(1, r.leaf1_eax, ebx, r.leaf1_ecx, r.leaf1_edx);
    __cpuid_count(7, 0, subleaves, r.leaf7_ebx, r.leaf7_ecx, r.leaf7_edx);
    if (r.max_leaf >= 7 && subleaves >= 1)
        __cpuid_count(7, 1, r.leaf7_1_eax, ebx, ecx, edx);
    if (all_set(r.leaf1_ecx, OSXSAVE))
        r.xcr0 = read_xcr0();
    if (has_amx(&r))
        r.amx_permission = ask_for_amx();
    *registers = r;
}
#elif defined(__aarch64__) && defined(__linux__)
void attn_cpu_read(struct attn_cpu_registers *registers) {
    struct attn_cpu_registers r = {.hwcap = getauxval(AT_HWCAP), .hwcap2 = getauxval(AT_HWCAP2)};
#ifdef PR_SVE_GET_VL /* the length is the choice of the system and the thread: no bit says it */
    int sve = all_set(r.hwcap, SVE) ? prctl(PR_SVE_GET_VL) : 0;
    r.sve_bytes = sve > 0 ? (uint64_t)sve & SVE_BYTES : 0;
#endif
    *registers = r;
}
#elif defined(__aarch64__)
/* Every AArch64 that macOS, Windows and the BSDs run on has them. */
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = (struct attn_cpu_registers){.hwcap = FP | ASIMD};
}
#else
void attn_cpu_read(struct attn_cpu_registers *registers) {
    *registers = (struct attn_cpu_registers){0};
}
#endif
