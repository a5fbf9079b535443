# shellcheck shell=bash
# Sourced by tools/test: what holds for the library on every platform, and one function per platform. Uses its functions (build, run,
# check, add, need) and its variable `top`.

# The names in src/isa.def, in its order.
isa_names() {
    sed -n 's/^ISA(\([a-z0-9_]*\),.*/\1/p' src/isa.def
}

# The static library defines no external symbol without the prefix attn_.
static_symbols_are_prefixed() {
    local symbols
    symbols=$(nm --extern-only --defined-only --format=just-symbols "$1") || return 1
    [[ $symbols == *attn_layer_forward* ]] || { echo "$1 does not define attn_layer_forward"; return 1; }
    ! grep -v -e '^attn_' -e ':$' -e '^$' <<<"$symbols"
}

# quietly LOG COMMAND...: what it prints goes to the file, its last line is shown every few seconds, all of it where it fails.
quietly() {
    local log=$1
    shift
    "$@" 2>&1 </dev/null | progress "$log" || { cat "$log"; return 1; }
}

# code_of OBJECT: its instructions.
code_of() {
    objdump --disassemble --no-show-raw-insn "$1" | sed '/file format/d'
}

# flags_are_pinned BUILD: kernels are the machine code that they are in BUILD, whatever the user's flags name. All files of
# an ISA have one list of flags. Those looked at are what a compiler would most like to write with other instructions.
flags_are_pinned() {
    local directory=$top/pinned object objects=(
        avx2.a.p/body_{softmax,gemm_int8} avx2_vnni.a.p/body_gemm_int8 avx512.a.p/body_{softmax,gemm_int8}
        avx512_vnni.a.p/body_gemm_int8 avx512_bf16.a.p/body_gemm_pairs)
    objects=("${objects[@]/#/simd/libattn_}")
    objects=("${objects[@]/%/.c.o}")
    rm -rf "$directory"
    CFLAGS='-march=icelake-server -mavx512f -mavx512vl -mavx512bf16 -mavxvnni' quietly "$directory.log" \
        meson setup "$directory" -Dtests=disabled -Dbench=disabled -Dexamples=disabled &&
        quietly "$directory.log" ninja -C "$directory" "${objects[@]}" || return 1
    for object in "${objects[@]}"; do
        [[ $(code_of "$1/$object") == *%[yz]mm* ]] || { echo "no vector code in $object"; return 1; }
        cmp <(code_of "$1/$object") <(code_of "$directory/$object") ||
            { echo "the user's flags change $object"; return 1; }
    done
}

# without_isas ISAS: a library that holds no other kernels but the reference's chooses among what it has.
without_isas() {
    local directory=$top/isas
    quietly "$directory.log" configure "$directory" -Dwerror=true -Dbench=disabled -Dexamples=disabled -Dtests=enabled "-Disas=$1" &&
        quietly "$directory.log" ninja -C "$directory" libattn.a tests/test_dispatch tests/test_badinput{,_attention} || return 1
    local isa symbols
    symbols=$(nm "$directory/libattn.a") || return 1
    for isa in avx2 avx512; do
        [[ $1 == *$isa* || $symbols != *attn_kernels_$isa* ]] || { echo "libattn.a holds $isa"; return 1; }
    done
    quietly "$directory.log" "$directory/tests/test_dispatch" --expect "${1:-scalar}" &&
        ATTN_TEST_QUICK=1 quietly "$directory.log" "$directory/tests/test_badinput" &&
        ATTN_TEST_QUICK=1 quietly "$directory.log" "$directory/tests/test_badinput_attention"
}

# Every file of a target in one. Kernels are compiled one by one whatever is asked for, and so not again here.
unity_builds() {
    local directory=$top/unity
    quietly "$directory.log" configure "$directory" --unity on -Dunity_size=1000 -Disas= -Dwerror=true \
        -Dtests=disabled -Dbench=disabled &&
        quietly "$directory.log" ninja -C "$directory"
}

# The library's sources refuse -ffast-math, its public header takes it.
fast_math_is_refused() {
    local flag out
    for flag in -ffast-math -Ofast -ffinite-math-only; do
        if out=$(cc -std=c11 "$flag" -Iinclude -Isrc -fsyntax-only src/ops/merge.c 2>&1); then
            echo "$flag: src/ops/merge.c compiles"
            return 1
        fi
        [[ $out == *'error: #error "libattn cannot be compiled with'* ]] || { echo "$out"; return 1; }
        echo '#include <attn/attn.h>' | cc "$flag" -Wall -Werror -Iinclude -fsyntax-only -x c - || return 1
    done
}

# src_is_baseline LIBRARY: no function of src/ has vector registers that a baseline processor lacks. Those of an instruction set
# have its name behind attn_.
src_is_baseline() {
    local wide
    wide=$(objdump --disassemble --no-show-raw-insn "$1" |
        awk -v "isas=<attn_($(isa_names | paste -sd '|'))_" '
            /^[0-9a-f]+ <.*>:$/ { name = $2; of_src = name ~ /<attn_/ && name !~ isas; count += of_src }
            of_src && /%[yz]mm/ { print name, $0 }
            END { if (count < 20) print "only", count, "functions of src are there" }')
    [ -z "$wide" ] || { head -n 5 <<<"$wide"; return 1; }
}

# Across files nothing is optimised into what a baseline processor lacks, nor into other bits.
lto_builds() {
    local directory=$top/lto isa status
    quietly "$directory.log" configure "$directory" -Db_lto=true -Dwerror=true -Dbench=disabled -Dexamples=disabled -Dtests=enabled &&
        quietly "$directory.log" meson compile -C "$directory" attn:shared_library hashes &&
        src_is_baseline "$(find "$directory" -maxdepth 1 -name 'libattn.so.*' -type f)" || return 1
    for isa in $(isa_names); do
        status=0
        "$directory/tests/hashes" --isa "$isa" --check tests/hashes.txt || status=$?
        [ "$status" = 0 ] || [ "$status" = 77 ] || return 1 # 77: the machine lacks it
    done
}

# ---- What Debian does not have for other platforms ----

# deb_source PACKAGE: Debian's source of it, unpacked as $top/sources/PACKAGE. Asks apt for its sources only here.
deb_source() {
    local sources=$PWD/$top/sources list
    [ ! -d "$sources/$1" ] || return 0
    mkdir -p "$sources/apt/parts" "$sources/apt/lists/partial"
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$list" ] || sed -e 's/^deb /deb-src /' -e 's/^Types:.*/Types: deb-src/' "$list" >"$sources/apt/parts/$(basename "$list")"
    done
    local options=(-o "Dir::Etc::SourceParts=$sources/apt/parts" -o Dir::Etc::SourceList=/dev/null
        -o "Dir::State::Lists=$sources/apt/lists" -o APT::Sandbox::User=root)
    quietly "$sources/apt.log" apt-get "${options[@]}" update || return 1
    (cd "$sources" && quietly apt.log apt-get "${options[@]}" source --download-only "$1") || return 1
    mkdir "$sources/$1.part"
    tar -xf "$sources/$1"_*.orig.tar.?z --strip-components=1 -C "$sources/$1.part" && mv "$sources/$1.part" "$sources/$1"
}

# library NAME SOURCE COMPILER...: a static library of one file, and how pkg-config finds it, in the caller's $prefix.
library() {
    local name=$1 source=$2 object=$prefix/lib/$1.o
    shift 2
    quietly "$prefix/log" "$@" -O2 -c "$source" -o "$object" &&
        quietly "$prefix/log" "$("$1" -print-prog-name=ar)" rcs "$prefix/lib/lib$name.a" "$object" &&
        printf '%s\n' "Name: $name" "Description: $name" 'Version: 1.0' "Cflags: -isystem $prefix/include" \
            "Libs: -L$prefix/lib -l$name" >"$prefix/lib/pkgconfig/${name/#cjson/libcjson}.pc"
}

# The C compiler of a cross file.
compiler_of() {
    sed -n "s/^c = '\(.*\)'/\1/p" "tools/cross/$1.ini"
}

# prefix PLATFORM: cmocka, cJSON and Random123 for it in $top/prefix/PLATFORM; both libraries are one C file.
prefix() {
    local prefix=$PWD/$top/prefix/$1 sources=$PWD/$top/sources define=() compiler
    [ ! -f "$prefix/lib/libcjson.a" ] || return 0
    compiler=$(compiler_of "$1")
    deb_source cmocka && deb_source cjson || return 1
    mkdir -p "$prefix/include/cjson" "$prefix/lib/pkgconfig"
    [[ $1 == *mingw* ]] || define=(-D_GNU_SOURCE -DHAVE_SIGLONGJMP -DHAVE_STRSIGNAL)
    define+=(-DHAVE_INTTYPES_H -DHAVE_SIGNAL_H -DHAVE_STRINGS_H -DHAVE_STRUCT_TIMESPEC -DHAVE_CLOCK_REALTIME
        -DHAVE_GCC_THREAD_LOCAL_STORAGE -D__USE_MINGW_ANSI_STDIO=1)
    cp "$sources/cmocka/include"/cmocka*.h "$prefix/include"
    cp "$sources/cjson/cJSON.h" "$prefix/include/cjson"
    cp -r /usr/include/Random123 "$prefix/include"
    library cmocka "$sources/cmocka/src/cmocka.c" "$compiler" "${define[@]}" -I"$prefix/include" &&
        library cjson "$sources/cjson/cJSON.c" "$compiler"
}

# build_for PLATFORM OPTION...: the programs of the tests for tools/cross/PLATFORM.ini in $top/PLATFORM, once.
build_for() {
    local name=$1
    [ -z "${built[$name]:-}" ] || return 0
    shift
    echo "== $name: build"
    if ! prefix "$name" || ! quietly "$top/$name.log" configure "$top/$name" --cross-file "tools/cross/$name.ini" -Dwerror=true \
        -Dtests=enabled -Dsleef=disabled -Dbench=disabled "-Dpkg_config_path=$PWD/$top/prefix/$name/lib/pkgconfig" "$@"; then
        add "$name: configure" 0 1 0
        return 1
    fi
    if ! ninja -C "$top/$name" meson-test-prereq 2>&1 </dev/null | progress "$top/$name.log"; then
        grep -v '^\[' "$top/$name.log" || cat "$top/$name.log"
        add "$name: build" 0 1 0
        return 1
    fi
    built[$name]=yes
}

# ---- The platforms ----

# What each needs beyond what the tests need on this machine.
declare -A platform_packages=(
    [static]=dpkg-dev
    [musl]="dpkg-dev musl-tools"
    [windows]="dpkg-dev gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix cmake wine wine64"
    [i386]="dpkg-dev gcc-i686-linux-gnu libc6-dev-i386-cross"
    [armhf]="dpkg-dev gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user"
    [riscv64]="dpkg-dev gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user"
    [s390x]="dpkg-dev gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user"
)

# platform NAME CROSS TEST...: the quick tests for tools/cross/CROSS.ini, these of them but in the long form.
platform() {
    local name=$1 cross=$2 tests=("${@:3}")
    build_for "$cross" "-Dexamples=${examples:-disabled}" || return 0
    [ "$form" != long ] || tests=()
    ATTN_TEST_QUICK=1 run "$name" "$cross" "${tests[@]}"
}

# Under an emulator, and so without ISAs but scalar: a minute of processor time or less.
some_tests=(hashes cpu dispatch philox softmax transpose small golden semantics badinput badinput_attention gemm_bf16 quantised convert)

run_riscv64() {
    platform riscv64 riscv64-linux-gnu "${some_tests[@]}"
}

# Big-endian: the example's file is not.
run_s390x() {
    local examples=enabled
    platform s390x s390x-linux-gnu "${some_tests[@]}"
    [ -z "${built[s390x-linux-gnu]:-}" ] || check "s390x: dates" some_dates qemu-s390x -L /usr/s390x-linux-gnu "$top/s390x-linux-gnu"
}

# some_dates EMULATOR... BUILD
some_dates() {
    head -n 5 examples/dates/dates_test.tsv >"$top/dates.tsv"
    "${@:1:$#-1}" "${!#}/examples/dates" --check "$top/dates.tsv"
}

run_armhf() {
    platform armhf arm-linux-gnueabihf "${some_tests[@]}"
}

run_i386() {
    platform i386 i686-linux-gnu
}

run_static() {
    platform static x86_64-linux-static
}

run_musl() {
    platform musl x86_64-linux-musl
}

# The DLL exports what the header declares and nothing else; hello.c against it and against the static library.
run_windows() {
    export WINEPREFIX=$PWD/$top/wine WINEDEBUG=-all
    local cross=x86_64-w64-mingw32
    platform windows "$cross" hashes cpu dispatch badinput badinput_attention gemm gemm_bf16 quantised convert softmax small attention \
        types masks cache_kinds threads
    [ -n "${built[$cross]:-}" ] || return 0
    check "windows: exported symbols" dll_exports_match "$top/$cross"
    check "windows: hello with the DLL" hello_windows "$top/$cross" "$top/$cross/libattn.dll.a"
    check "windows: hello with libattn.a" hello_windows "$top/$cross" -DATTN_STATIC "$top/$cross/libattn.a"
    check "windows: CMake, libattn.a" by_cmake_for_windows windows-static
    check "windows: CMake, the DLL" by_cmake_for_windows windows-shared -DBUILD_SHARED_LIBS=ON
    unset WINEPREFIX WINEDEBUG
}

dll_exports_match() {
    local names dll
    dll=libattn-$(sed -n 's/^#define ATTN_VERSION_M[AIJNOR]* //p' include/attn/attn.h | paste -sd.).dll
    quietly "$1.log" ninja -C "$1" "$dll" || return 1
    names=$(x86_64-w64-mingw32-objdump -p "$1/$dll" | sed -n '/^\[Ordinal.Name Pointer\]/,/^$/s/.*\] *//p' | grep -v '^Table$')
    diff <(sed -n 's/^ATTN_API .*\(attn_[a-z_0-9]*\)(.*/\1/p' include/attn/attn.h | sort) <(sort <<<"$names")
}

hello_windows() {
    x86_64-w64-mingw32-gcc-posix -Wall -Werror -Iinclude examples/hello.c -o "$1/hello.exe" "${@:2}" && wine "$1/hello.exe"
}

# ---- What is only compiled ----

# The C library's headers as far as the library needs them, for targets whose own are not there.
stub_headers() {
    mkdir -p "$1/sys"
    cat >"$1/math.h" <<'STUB'
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)
#define signbit(x) __builtin_signbit(x)
double fabs(double), sqrt(double), frexp(double, int *), fma(double, double, double), rint(double), floor(double), ldexp(double, int);
long lrintf(float);
float fabsf(float), sqrtf(float), fmaf(float, float, float), rintf(float), copysignf(float, float), ldexpf(float, int);
STUB
    cat >"$1/string.h" <<'STUB'
#include <stddef.h>
void *memcpy(void *, const void *, size_t), *memmove(void *, const void *, size_t), *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t), strcmp(const char *, const char *);
size_t strlen(const char *);
STUB
    cat >"$1/stdlib.h" <<'STUB'
#include <stddef.h>
void *malloc(size_t);
void free(void *);
char *getenv(const char *);
STUB
    cp "$1/stdlib.h" "$1/malloc.h"
    cat >"$1/stdio.h" <<'STUB'
#include <stdarg.h>
#include <stddef.h>
typedef struct FILE FILE;
extern FILE *stderr;
int fputs(const char *, FILE *), fprintf(FILE *, const char *, ...), snprintf(char *, size_t, const char *, ...);
int vsnprintf(char *, size_t, const char *, va_list);
STUB
    cat >"$1/time.h" <<'STUB'
#define TIME_UTC 1
struct timespec { long tv_sec, tv_nsec; };
int timespec_get(struct timespec *, int);
STUB
    cat >"$1/sys/time.h" <<'STUB'
struct timeval { long tv_sec, tv_usec; };
int gettimeofday(struct timeval *, void *);
STUB
    cat >"$1/sys/auxv.h" <<'STUB'
#define AT_HWCAP 16
#define AT_HWCAP2 26
unsigned long getauxval(unsigned long);
STUB
    cat >"$1/sys/prctl.h" <<'STUB'
#define PR_SVE_GET_VL 51
int prctl(int, ...);
STUB
}

# compiles_for TARGET ISA FLAG...: clang takes the sources, those of the ISA with its flags, and the public header in C++ too.
compiles_for() {
    local target=$1 isa=$2 flags=("${@:3}")
    local clang=(clang-16 "--target=$target" -fsyntax-only -nostdlibinc -isystem "$top/stubs" -Iinclude -Isrc -Isimd "-Isimd/$isa"
        -Wall -Wextra -Wconversion -Wshadow -Werror)
    local built=() name sources
    mapfile -t sources < <(awk -v isa="$isa" '!/^#/ { for (i = 2; i <= NF; i++) if ($i == isa) print "simd/" $1 }' simd/sources.txt)
    for name in $(isa_names | grep -v scalar); do
        built+=("-DATTN_BUILT_${name^^}=$([ "$name" = "$isa" ] && echo 1 || echo 0)")
    done
    stub_headers "$top/stubs"
    "${clang[@]}" -std=c11 -DATTN_BUILDING "${built[@]}" src/*.c src/{api,ops,ref}/*.c &&
        "${clang[@]}" -std=c11 "${flags[@]}" "${sources[@]}" &&
        "${clang[@]}" -std=c++11 -x c++ include/attn/attn.h -Wno-pragma-once-outside-header -Wno-unused-function
}

run_compiled() {
    check "clang-cl, Windows on x86-64: syntax" compiles_for x86_64-pc-windows-msvc avx2 -mavx2 -mfma -mf16c
    check "clang-cl, Windows on Arm: syntax" compiles_for aarch64-pc-windows-msvc neon
    check "macOS on Arm: syntax" compiles_for arm64-apple-macos11 neon
    check "macOS on x86-64: syntax" compiles_for x86_64-apple-macos11 avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma
    check "Android: syntax" compiles_for aarch64-linux-android24 neon
    check "Android, SVE: syntax" compiles_for aarch64-linux-android24 sve256 -march=armv8.2-a+sve -msve-vector-bits=256
}
