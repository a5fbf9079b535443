# What every file is compiled with, what kernels are, and which instruction sets are built. The reasons are in meson.build,
# src/meson.build and simd/meson.build.
include(CheckCCompilerFlag)
include(CheckCSourceCompiles)

if(MSVC AND NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "attn: cl has neither C11's headers nor the flags of the kernels; take clang-cl (-T ClangCL)")
endif()

# attn_supported(VARIABLE FLAG...): those that the compiler has.
function(attn_supported variable)
  set(supported)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "ATTN_HAS${flag}" has)
    # gcc takes any unknown -Wno-..., none of which is asked for here; clang warns of what it does not use.
    set(CMAKE_REQUIRED_FLAGS -Werror)
    check_c_compiler_flag(${flag} ${has})
    if(${has})
      list(APPEND supported ${flag})
    endif()
  endforeach()
  set(${variable} ${supported} PARENT_SCOPE)
endfunction()

# clang-cl takes the flags of gcc behind a prefix.
set(attn_prefix "")
if(MSVC)
  set(attn_prefix "/clang:")
endif()

attn_supported(attn_flags ${attn_prefix}-fexcess-precision=fast)
list(APPEND attn_flags ${attn_prefix}-ffp-contract=off)
if(ATTN_OPTIMIZED)
  list(APPEND attn_flags ${attn_prefix}-O3)
endif()
if(MINGW)
  list(APPEND attn_flags -D__USE_MINGW_ANSI_STDIO=1)
endif()

attn_supported(attn_src_flags ${attn_prefix}-fno-tree-vectorize ${attn_prefix}-fno-vectorize ${attn_prefix}-fno-slp-vectorize
               ${attn_prefix}-mmemset-strategy=libcall:-1:noalign)
attn_supported(attn_ref_flags ${attn_prefix}-fno-lto)

attn_supported(attn_simd_flags ${attn_prefix}-fno-jump-tables ${attn_prefix}-falign-functions=64
               ${attn_prefix}-fno-tree-loop-vectorize ${attn_prefix}-fno-vectorize)
if(MINGW AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  list(APPEND attn_simd_flags -Wa,-muse-unaligned-vector-move)
endif()

# The processor is the compiler's: CMAKE_SYSTEM_PROCESSOR is not, with -m32 or CMAKE_OSX_ARCHITECTURES. Of two architectures in
# one build neither has kernels.
check_c_source_compiles("
  #if !defined(__x86_64__) && !defined(_M_X64)
  #error
  #endif
  int main(void) { return 0; }" ATTN_X86_64)
check_c_source_compiles("
  #if !defined(__aarch64__) && !defined(_M_ARM64)
  #error
  #endif
  int main(void) { return 0; }" ATTN_AARCH64)
set(attn_processor none)
if(ATTN_X86_64)
  set(attn_processor x86_64)
elseif(ATTN_AARCH64)
  set(attn_processor aarch64)
endif()
