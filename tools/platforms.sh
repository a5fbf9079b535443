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
