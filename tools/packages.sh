# shellcheck shell=bash
# Sourced by the tools: what they say of themselves; Debian packages, installed only where they are missing.

# usage: the comment at the head of the tool.
usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "tools/$(basename "$0")"
}

# only_help ARGUMENT...: of a tool that takes none but --help.
only_help() {
    case ${1-} in
    '') ;;
    -h | --help) usage && exit ;;
    *)
        echo "$0: there is no argument '$1'" >&2
        usage >&2
        exit 2
        ;;
    esac
}

# have PACKAGE: is what that Debian package brings there, however it came?
have() {
    case $1 in
    abigail-tools) command -v abidw && command -v abidiff ;;
    bochs) command -v bochs-bin ;;
    bochs-term) compgen -G '/usr/lib/*/bochs/plugins/libbx_term_gui.so' ;;
    bsdutils) command -v script ;;
    build-essential) command -v cc && command -v c++ ;;
    clang-16) command -v clang-16 ;;
    busybox-static) command -v busybox ;;
    cmake) command -v cmake ;;
    cpio) command -v cpio ;;
    genisoimage) command -v genisoimage ;;
    isolinux) test -e /usr/lib/ISOLINUX/isolinux.bin ;;
    linux-image-cloud-amd64) compgen -G '/boot/vmlinuz-*cloud-amd64' ;;
    syslinux-common) test -e /usr/lib/syslinux/modules/bios/ldlinux.c32 ;;
    clang-format) command -v clang-format ;;
    debian-archive-keyring) test -e /usr/share/keyrings/debian-archive-keyring.gpg ;;
    debootstrap) command -v debootstrap ;;
    doxygen) command -v doxygen ;;
    dpkg-dev) command -v dpkg-source ;;
    gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc ;;
    g++-aarch64-linux-gnu) command -v aarch64-linux-gnu-g++ ;;
    gcc-arm-linux-gnueabihf) command -v arm-linux-gnueabihf-gcc ;;
    gcc-i686-linux-gnu) command -v i686-linux-gnu-gcc ;;
    gcc-mingw-w64-x86-64-posix) command -v x86_64-w64-mingw32-gcc-posix ;;
    g++-mingw-w64-x86-64-posix) command -v x86_64-w64-mingw32-g++-posix ;;
    gcc-riscv64-linux-gnu) command -v riscv64-linux-gnu-gcc ;;
    gcc-s390x-linux-gnu) command -v s390x-linux-gnu-gcc ;;
    libc6-dev-i386-cross) test -e /usr/i686-linux-gnu/lib/libc.so.6 ;;
    libc6-dev-armhf-cross) test -e /usr/arm-linux-gnueabihf/lib/libc.so.6 ;;
    libc6-dev-riscv64-cross) test -e /usr/riscv64-linux-gnu/lib/libc.so.6 ;;
    libc6-dev-s390x-cross) test -e /usr/s390x-linux-gnu/lib/libc.so.6 ;;
    musl-tools) command -v musl-gcc ;;
    valgrind) command -v valgrind ;;
    wine | wine64) command -v wine ;;
    llvm-16) command -v llvm-mca-16 ;;
    llvm-19) command -v llvm-mca-19 ;;
    gnuplot-nox) command -v gnuplot ;;
    libbenchmark-dev) pkg-config --exists benchmark ;;
    libbenchmark-tools) test -e /usr/share/benchmark/compare.py ;;
    libcjson-dev) pkg-config --exists libcjson ;;
    libcmocka-dev) pkg-config --exists cmocka ;;
    libdnnl-dev) test -e /usr/include/dnnl.hpp ;;
    libopenblas-dev) pkg-config --exists openblas ;;
    libpthreadpool-dev) test -e /usr/include/pthreadpool.h ;;
    librandom123-dev) test -e /usr/include/Random123/philox.h ;;
    libsleef-dev) pkg-config --exists sleef ;;
    libc6-dev:arm64) test -e /usr/lib/aarch64-linux-gnu/crti.o ;;
    libcjson-dev:arm64) test -e /usr/lib/aarch64-linux-gnu/pkgconfig/libcjson.pc ;;
    libcmocka-dev:arm64) test -e /usr/lib/aarch64-linux-gnu/pkgconfig/cmocka.pc ;;
    libgomp1:arm64) test -e /usr/lib/aarch64-linux-gnu/libgomp.so.1 ;;
    libstdc++6:arm64) test -e /usr/lib/aarch64-linux-gnu/libstdc++.so.6 ;;
    libsleef-dev:arm64) test -e /usr/lib/aarch64-linux-gnu/pkgconfig/sleef.pc ;;
    meson) command -v meson ;;
    ninja-build) command -v ninja ;;
    nodejs) command -v node ;;
    npm) command -v npm ;;
    pkg-config) command -v pkg-config ;;
    python3) test -x /usr/bin/python3 ;;
    python3-scipy) test -e /usr/lib/python3/dist-packages/scipy/__init__.py ;;
    python3-torch) test -e /usr/lib/python3/dist-packages/torch/__init__.py ;;
    qemu-user) command -v qemu-aarch64 && command -v qemu-x86_64 ;;
    *) return 1 ;;
    esac >/dev/null 2>&1
}

# progress LOG: copies its input to LOG, and its last line to the terminal every few seconds.
progress() {
    local line part='' last='' shown=$SECONDS status=0
    : >"$1"
    while [ "$status" = 0 ] || [ "$status" -gt 128 ]; do # above 128: no whole line has come in time
        status=0
        IFS= read -r -t 2 line || status=$?
        part+=$line
        if [ "$status" -le 128 ] && [ -n "$part" ]; then
            printf '%s\n' "$part" >>"$1"
            last=$part part=''
        fi
        if [ $((SECONDS - shown)) -ge 5 ]; then
            echo "   ${last:0:100}"
            shown=$SECONDS
        fi
    done
}

# never_silent: copies its input; where none comes for some seconds it says for how long it has waited.
never_silent() {
    local line part='' since=$SECONDS status=0
    while [ "$status" = 0 ] || [ "$status" -gt 128 ]; do
        status=0
        IFS= read -r -t 8 line || status=$?
        part+=$line
        if [ "$status" -gt 128 ]; then
            echo "   ... $((SECONDS - since)) s"
        elif [ "$status" = 0 ] || [ -n "$part" ]; then
            printf '%s\n' "$part"
            part='' since=$SECONDS
        fi
    done
}

# say_size PACKAGE...: how much is to be downloaded for them and what they need, and how much disk that takes, in apt's words.
say_size() {
    apt-get install --assume-no --no-install-recommends "$@" 2>/dev/null | sed -n 's/^\(Need to get\|After this\)/   &/p' || true
}

installed_at=0

# need PACKAGE...: installs those that are missing, or says in one line which they are and exits.
need() {
    local missing=() package
    for package in "$@"; do
        have "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    if ! command -v apt-get >/dev/null; then
        echo "$0: not a Debian system; install yourself what these packages bring there: ${missing[*]}" >&2
        exit 1
    fi
    local add_arm64=
    if [[ "${missing[*]}" == *:arm64* ]] && ! dpkg --print-foreign-architectures | grep -qx arm64; then
        add_arm64='dpkg --add-architecture arm64'
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "$0: not root; first run as root: ${add_arm64:+$add_arm64; }apt-get update; apt-get install ${missing[*]}" >&2
        exit 1
    fi

    echo "$0: installing ${missing[*]}"
    $add_arm64
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! apt-get update 2>&1 </dev/null | progress "$log" || ! say_size "${missing[@]}" ||
        ! apt-get install -y --no-install-recommends "${missing[@]}" 2>&1 </dev/null | progress "$log"; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "$0: apt-get could not install ${missing[*]}" >&2
        exit 1
    fi
    rm -f "$log"
    installed_at=$(date +%s)
}

# configure DIRECTORY OPTION...: meson's set-up, also of a directory that has been set up before; from nothing where packages
# have been installed since, for meson remembers what was missing.
configure() {
    local again=()
    if [ -f "$1/build.ninja" ]; then
        again=(--reconfigure)
        [ "$(stat -c %Y "$1/build.ninja")" -gt "$installed_at" ] || again=(--wipe)
    fi
    meson setup ${again[@]+"${again[@]}"} "$@" </dev/null
}
