# shellcheck shell=bash
# Sourced by tools/test: every way by which a program takes the library in, and what versions and ABI promise to those programs.
# Uses its functions (build, check) and its variable `top`.

# What is built where any ISA will do: a tenth of the time that all take.
case $(uname -m) in
x86_64) one_isa=avx2 ;;
aarch64) one_isa=neon ;;
*) one_isa= ;;
esac

# The version that the header says, "0.2.0".
header_version() {
    sed -n 's/^#define ATTN_VERSION_M[AIJNOR]* \|^#define ATTN_VERSION_PATCH //p' include/attn/attn.h | paste -sd.
}

# What a soname has of it: MAJOR.MINOR while MAJOR is 0.
abi_version() {
    header_version | sed -E 's/^(0\.[0-9]+|[0-9]+).*/\1/'
}

# hellos DIRECTORY: the answers of examples/hello.c and hello.cc, under the caller's $emulator.
hellos() {
    local name out
    for name in c cc; do
        out=$(${emulator:-} "$1/hello_$name${emulator:+.exe}") || return 1
        [[ $out == "libattn $(header_version) on "*": y[0] = 2.000 "* ]] || { echo "hello_$name: $out"; return 1; }
    done
}

# ---- CMake ----

# by_cmake NAME OPTION...: tests/link in $top/link/NAME, from nothing.
by_cmake() {
    local directory=$PWD/$top/link/$1
    shift
    rm -rf "$directory"
    quietly "$directory.log" cmake -S tests/link -B "$directory" -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
        -DCMAKE_C_FLAGS='-Wall -Wextra -Werror' -DCMAKE_CXX_FLAGS='-Wall -Wextra -Wconversion -Werror' "$@" &&
        quietly "$directory.log" ninja -C "$directory" && hellos "$directory"
}

# same_flags MESON_BUILD: whatever the build type is, CMake compiles each file as meson does.
same_flags() {
    local directory=$top/link/flags type
    for type in '' Debug; do
        rm -rf "$directory"
        quietly "$directory.log" cmake -S . -B "$directory" -G Ninja -DCMAKE_BUILD_TYPE="$type" -DBUILD_SHARED_LIBS=ON \
            -DCMAKE_EXPORT_COMPILE_COMMANDS=ON && tools/flags.py "$1" "$directory" || { echo "build type '$type'"; return 1; }
    done
}

# The files that are tracked, as they are now.
source_tarball() {
    git rev-parse --git-dir >/dev/null 2>&1 || { echo "SKIP: not a git repository"; return 77; }
    git ls-files -z | tar -cJf "$top/link/source.tar.xz" --null --files-from=- --transform "s,^,attn-$(header_version)/,"
}

with_fetch_content() {
    source_tarball || return
    by_cmake fetch -DATTN_WAY=fetch -DATTN_SOURCE="$PWD/$top/link/source.tar.xz" -DATTN_ISAS= -DBUILD_SHARED_LIBS=ON
}

# cmake_installs: a shared library that exports what the header declares, under its soname, and finds its way.
cmake_installs() {
    local directory=$PWD/$top/link/install root=$PWD/$top/link/root
    rm -rf "$directory" "$root"
    quietly "$directory.log" cmake -S . -B "$directory" -G Ninja -DATTN_ISAS= -DBUILD_SHARED_LIBS=ON \
        -DCMAKE_INSTALL_PREFIX="$root" -DCMAKE_INSTALL_LIBDIR=lib && quietly "$directory.log" ninja -C "$directory" install &&
        exports_match "$root/lib/libattn.so" && soname_is_right "$root/lib/libattn.so" &&
        by_cmake package -DCMAKE_PREFIX_PATH="$root" -DATTN_WANTED="$(abi_version)"
}

soname_is_right() {
    objdump -p "$1" | grep -qE "SONAME +libattn\.so\.$(abi_version)\$" || { objdump -p "$1" | grep SONAME; return 1; }
}

# find_package after an install by meson, of either library.
meson_package() {
    local root=$PWD/$top/link/meson component
    rm -rf "$root"
    meson install -C "$top/gcc" --no-rebuild --quiet --destdir "$root" </dev/null || return 1
    for component in shared static; do
        by_cmake "meson-$component" -DCMAKE_PREFIX_PATH="$root/usr/local" -DATTN_WANTED="$(header_version);COMPONENTS;$component" ||
            return 1
        readelf -d "$top/link/meson-$component/hello_c" >"$top/link/needed"
        if [ $component = shared ]; then
            grep -q libattn.so "$top/link/needed" || return 1
        else
            ! grep libattn.so "$top/link/needed" || return 1
        fi
    done
}

# What is not there is not found: an ABI of another version, a library that was not built.
packages_are_refused() {
    local root=$1 wanted
    for wanted in 99 0.1 "0.1...<$(abi_version)" "$(abi_version);COMPONENTS;$2"; do
        if cmake -S tests/link -B "$top/link/refused" -G Ninja -DCMAKE_PREFIX_PATH="$root" -DATTN_WANTED="$wanted" \
            >"$top/link/refused.log" 2>&1; then
            echo "found: $wanted"
            return 1
        fi
        grep -qE "that is compatible|no library '$2'" "$top/link/refused.log" || { cat "$top/link/refused.log"; return 1; }
    done
}

# by_cmake_for_windows NAME OPTION...
by_cmake_for_windows() {
    local emulator=wine compiler=x86_64-w64-mingw32
    by_cmake "$@" -DATTN_WAY=subdirectory -DATTN_SOURCE="$PWD" -DATTN_ISAS= -DCMAKE_SYSTEM_NAME=Windows \
        -DCMAKE_C_COMPILER=$compiler-gcc-posix -DCMAKE_CXX_COMPILER=$compiler-g++-posix \
        -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$PWD/$top/link/$1" -DCMAKE_EXE_LINKER_FLAGS=-static
}

run_cmake() {
    build gcc -Dbench=enabled -Dexamples=enabled || return 0
    mkdir -p "$top/link"
    check "CMake: files and flags are meson's" same_flags "$top/gcc"
    check "CMake: add_subdirectory, Debug" by_cmake subdirectory -DATTN_WAY=subdirectory -DATTN_SOURCE="$PWD" \
        -DCMAKE_BUILD_TYPE=Debug -DATTN_ISAS="$one_isa"
    check "CMake: FetchContent" with_fetch_content
    check "CMake: find_package after its install" cmake_installs
    check "CMake: find_package after meson's install" meson_package
    check "CMake: what is not found" packages_are_refused "$PWD/$top/link/root" static
}

# ---- A subproject of meson's ----

# The parent has the sources by a wrap file, is a debug build, and links statically.
as_subproject() {
    local directory=$PWD/$top/link/subproject tarball
    source_tarball || return
    tarball=$PWD/$top/link/source.tar.xz
    rm -rf "$directory"
    mkdir -p "$directory/subprojects"
    cp tests/link/meson.build examples/hello.c examples/hello.cc "$directory"
    printf '%s\n' '[wrap-file]' "directory = attn-$(header_version)" "source_url = file://$tarball" \
        'source_filename = attn.tar.xz' "source_hash = $(sha256sum "$tarball" | cut -d ' ' -f 1)" \
        '[provide]' 'dependency_names = attn' >"$directory/subprojects/attn.wrap"
    quietly "$directory/log" meson setup "$directory/build" "$directory" -Dbuildtype=debug -Ddefault_library=static \
        --prefix /usr "-Dattn:isas=$one_isa" && quietly "$directory/log" ninja -C "$directory/build" &&
        hellos "$directory/build" && subproject_is_optimised "$directory/build" && installs_only_what_is_asked "$directory"
}

# subproject_is_optimised BUILD: all its files by -O3 though the parent's are by -O0; no shared library was built.
subproject_is_optimised() {
    local last
    last=$(grep '"command"' "$1/compile_commands.json" | sed -E 's/.* -O([0-9a-z]*) .* -c .*\/((subprojects|hello)[^" ]*).*/\1 \2/')
    grep -q '^0 hello' <<<"$last" || { echo "the parent is not compiled by -O0"; return 1; }
    [ "$(grep -c '^3 subprojects/attn-[^ ]*/simd/' <<<"$last")" -gt 0 ] || [ -z "$one_isa" ] || { echo "no kernels"; return 1; }
    ! grep -v '^3 ' <<<"$last" | grep subprojects || return 1
    [ -z "$(find "$1" -name 'libattn.so*')" ] || { echo "a shared library"; return 1; }
}

installs_only_what_is_asked() {
    local files
    meson install -C "$1/build" --no-rebuild --quiet --destdir "$1/alone" </dev/null || return 1
    files=$(cd "$1/alone" && find . -type f | sort | paste -sd' ')
    [ "$files" = "./usr/bin/hello_c ./usr/bin/hello_cc" ] || { echo "installed: $files"; return 1; }
    quietly "$1/log" meson configure "$1/build" -Dattn:install=enabled &&
        quietly "$1/log" meson install -C "$1/build" --quiet --destdir "$1/both" || return 1
    files=$(find "$1/both" -name attn.h -o -name libattn.a -o -name attn-config.cmake | wc -l)
    [ "$files" = 3 ] || { echo "$files of three files are installed"; return 1; }
}

# ---- What versions promise ----

# The header, the built library, its symbols, the changelog and README name one version. A release is the changelog's first
# heading; before it the text below [Unreleased] says what that is to become.
versions_agree() {
    local version changelog
    version=$(header_version)
    changelog=$(sed -n 's/^## \[\([0-9.]*\)\].*/\1/p; s/^To become \([0-9.]*[0-9]\)\..*/\1/p' CHANGELOG.md | head -n 1)
    [ "$changelog" = "$version" ] || { echo "attn.h: $version, CHANGELOG.md: $changelog"; return 1; }
    local text
    for text in "libattn $version on " "find_package(attn $(abi_version) " "attn-$version.tar.xz"; do
        grep -qF "$text" README.md || { echo "README.md is of another version: it lacks '$text'"; return 1; }
    done
    soname_is_right "$1" || return 1
    nm -D --defined-only "$1" | grep -q "attn_layer_forward@@ATTN_$(abi_version)\$" || { echo "symbols of another version"; return 1; }
}

# Dirty trees are allowed: what is committed is what the tarball holds.
tarball_passes() {
    git rev-parse --git-dir >/dev/null 2>&1 || { echo "SKIP: not a git repository"; return 77; }
    local directory=$PWD/$top/link/dist version
    version=$(header_version)
    rm -rf "$directory"
    quietly "$top/link/dist.log" meson setup "$directory" -Disas= -Dsleef=disabled -Dbench=disabled || return 1
    if [ "$form" = long ]; then
        quietly "$top/link/dist.log" meson dist -C "$directory" --allow-dirty
        return
    fi
    quietly "$top/link/dist.log" meson dist -C "$directory" --allow-dirty --no-tests || return 1
    local tree=$directory/unpacked/attn-$version build=$directory/unpacked/build
    mkdir "$directory/unpacked"
    tar -xf "$directory/meson-dist/attn-$version.tar.xz" -C "$directory/unpacked" &&
        quietly "$top/link/dist.log" meson setup "$build" "$tree" -Disas= -Dsleef=disabled -Dbench=disabled -Dtests=enabled &&
        quietly "$top/link/dist.log" ninja -C "$build" tests/hashes tests/test_golden tests/test_badinput examples/dates &&
        ATTN_TEST_QUICK=1 quietly "$top/link/dist.log" meson test -C "$build" --no-rebuild hashes golden badinput dates_expected
}

run_abi() {
    mkdir -p "$top"
    check "ABI" tools/abi
}

run_dist() {
    mkdir -p "$top/link"
    check "meson dist" tarball_passes
}
