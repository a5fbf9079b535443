/* Registers of processors that several tests play. */
#ifndef ATTN_TESTS_PROCESSORS_H
#define ATTN_TESTS_PROCESSORS_H

#include "cpu.h"

/* CPUID leaf 0, ebx; leaf 1, eax. */
#define INTEL          0x756e6547
#define EMERALD_RAPIDS 0x000c06f2

/* XCR0 of systems that save all of AVX-512, PKRU, TILECFG and TILEDATA. */
#define XCR0_TILES UINT64_C(0x602e7)

/* Emerald Rapids differs in leaf 1 alone. */
static const struct attn_cpu_registers sapphire_rapids = {.max_leaf = 0x20,
                                                          .leaf1_ecx = 0x7ffefbff,
                                                          .leaf1_edx = 0xbfebfbff,
                                                          .leaf7_ebx = 0xf3bfbfeb,
                                                          .leaf7_ecx = 0xfb417ffe,
                                                          .leaf7_edx = 0xffdd4432,
                                                          .leaf7_1_eax = 0x00001c30,
                                                          .xcr0 = XCR0_TILES,
                                                          .amx_permission = ATTN_AMX_GRANTED};

#endif
