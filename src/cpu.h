/* Which instruction sets this processor, and the operating system on it, let a program use. */
#ifndef ATTN_CPU_H
#define ATTN_CPU_H

#include <attn/attn.h>
#include <stdbool.h>
#include <stdint.h>

/* What the machine says, as read; those of another architecture are 0. */
struct attn_cpu_registers {
    uint32_t max_leaf, vendor;                /* x86: CPUID leaf 0, eax and ebx, where the vendor's name begins */
    uint32_t leaf1_eax, leaf1_ecx, leaf1_edx; /* CPUID leaf 1; eax is the model */
    uint32_t leaf7_ebx, leaf7_ecx, leaf7_edx; /* CPUID leaf 7, subleaf 0; means nothing where max_leaf is below 7 */
    uint32_t leaf7_1_eax;                     /* the same, subleaf 1; 0 where there is none */
    uint64_t xcr0;                            /* XGETBV 0; 0 where leaf 1 lacks OSXSAVE: the instruction would trap */
    int amx_permission;                       /* ATTN_AMX_GRANTED; an errno, negative, of a refusal; 0: not asked for */
    uint64_t hwcap, hwcap2;                   /* AArch64: AT_HWCAP, AT_HWCAP2; outside Linux what every AArch64 has */
    uint64_t sve_bytes;                       /* of an SVE register in this thread; 0 without SVE and outside Linux */
};

enum { ATTN_AMX_GRANTED = 1 };

/* Reads the processor that the calling thread runs on. Where all else that AMX needs is there, asks Linux to let this
 * process use it. */
void attn_cpu_read(struct attn_cpu_registers *registers);

/* Whether a machine with these registers can run `isa`. A pure function, for registers of either architecture on
 * either. False for ATTN_ISA_BEST and values that are no ISA. */
bool attn_cpu_supports(const struct attn_cpu_registers *registers, attn_isa isa);

/* Whether a VDPBF16PS takes longer than the two multiply-adds that give the same bits. A pure function likewise. */
bool attn_cpu_is_slow_at_pairs(const struct attn_cpu_registers *registers);

#endif
