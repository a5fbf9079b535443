# shellcheck shell=bash
# Sourced by tools/test: what holds for the library on every platform, and one function per platform. Uses its functions (build, run,
# check, add, need) and its variable `top`.

# The static library defines no external symbol without the prefix attn_.
static_symbols_are_prefixed() {
    local symbols
    symbols=$(nm --extern-only --defined-only --format=just-symbols "$1") || return 1
    [[ $symbols == *attn_layer_forward* ]] || { echo "$1 does not define attn_layer_forward"; return 1; }
    ! grep -v -e '^attn_' -e ':$' -e '^$' <<<"$symbols"
}

# quietly LOG COMMAND...: what it prints goes to the file, and is shown where it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null || { cat "$log"; return 1; }
}

# isa_code DIRECTORY ISA: the instructions of its kernels in a build.
isa_code() {
    objdump --disassemble --no-show-raw-insn "$1/simd/libattn_$2.a" | sed -e '/file format/d' -e '/^In archive/d'
}

# flags_are_pinned BUILD: the kernels are the machine code that they are in BUILD, whatever instruction sets the user's flags name.
flags_are_pinned() {
    local directory=$top/pinned isa
    rm -rf "$directory"
    CFLAGS='-march=icelake-server -mavx512f -mavx512vl' quietly "$directory.log" \
        meson setup "$directory" -Dtests=disabled -Dbench=disabled -Dexamples=disabled || return 1
    for isa in avx2 avx512; do
        quietly "$directory.log" ninja -C "$directory" "simd/libattn_$isa.a" || return 1
        grep -q vfmadd <(isa_code "$1" "$isa") || { echo "no multiply-add in $isa"; return 1; }
        cmp <(isa_code "$1" "$isa") <(isa_code "$directory" "$isa") || { echo "the user's flags change $isa"; return 1; }
    done
}

# without_isas ISAS: a library that holds no other kernels but the reference's chooses among what it has.
without_isas() {
    local directory=$top/isas
    quietly "$directory.log" configure "$directory" -Dwerror=true -Dbench=disabled -Dexamples=disabled -Dtests=enabled "-Disas=$1" &&
        quietly "$directory.log" ninja -C "$directory" libattn.a tests/test_dispatch tests/test_badinput || return 1
    ! nm "$directory/libattn.a" | grep -q attn_kernels_avx512 || { echo "libattn.a holds avx512"; return 1; }
    quietly "$directory.log" "$directory/tests/test_dispatch" --expect "${1:-scalar}" &&
        quietly "$directory.log" "$directory/tests/test_badinput"
}

# Every file of a target in one.
unity_builds() {
    local directory=$top/unity
    quietly "$directory.log" configure "$directory" --unity on -Dunity_size=1000 -Dwerror=true -Dtests=disabled -Dbench=disabled &&
        quietly "$directory.log" ninja -C "$directory"
}
