#!/usr/bin/env bash
# What `make install` leaves, used from an empty folder: by pkg-config, by CMake, in C and in C++. The exported names are
# those of the public headers and no others.
set -u
. tests/cli/tap.sh
build=$(realpath "${XKD_BUILD:-build}") include=$(realpath include) examples=$(realpath examples)
cc=${CC:-cc} cxx=${CXX:-c++}

# marked: names of the functions that the headers mark; declared: of all functions that they declare.
marked=$(grep -hoE '^XKD_API [^(]*\bxkd_[a-z0-9_]+\(' include/xkd/*.h | grep -oE 'xkd_[a-z0-9_]+\($' | tr -d '(' | sort)
declared=$(cat include/xkd/*.h | sed -e 's|/\*.*\*/||' | grep -E '^[a-zA-Z].*\bxkd_[a-z0-9_]+\(' | grep -v '^typedef' |
  sed -E 's/.*\b(xkd_[a-z0-9_]+)\(.*/\1/' | sort)
exported=$(nm -D --defined-only "$build/libxkd.so" | awk '$2 != "A" {sub(/@.*/, "", $3); print $3}' |
  grep -vE '^(__asan|__ubsan|__sanitizer|__odr_asan)' | sort)
rc=0 out=$(diff <(echo "$marked") <(echo "$exported")) err=""
check "libxkd.so exports what the headers mark" [ "$marked" = "$exported" ]
out=$(diff <(echo "$marked") <(echo "$declared"))
check "every function of the headers is marked" [ "$marked" = "$declared" ]
check "there are such names" [ "$(echo "$marked" | wc -l)" -ge 12 ]

DESTDIR=$work/stage cmake --install "$build" >"$work/install.log" 2>&1
rc=$? out=$(tail -n 5 "$work/install.log")
check "it installs below DESTDIR" code 0
# Sanitizers want their run-time library in the program, which is not what this is about.
if grep -qE '^XKD_SANITIZE:STRING=.+' "$build/CMakeCache.txt"; then
  ok "use of the installed files # SKIP sanitized build"
  finish
fi
prefix=$work/stage$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
libdir=$(dirname "$(find "$prefix" -name libxkd.so)")
for file in "$prefix/bin/xkd" "$prefix/include/xkd/xkd.h" "$libdir/libxkd.a" "$libdir/libxkd.so.0" \
  "$libdir/pkgconfig/libxkd.pc" "$libdir/cmake/xkd/xkdConfig.cmake" "$prefix"/share/man/man1/{xkd,xkd-pretrain,xkd-data-index}.1 \
  "$prefix/share/man/man5/xkd-config.5" "$prefix/share/bash-completion/completions/xkd" \
  "$prefix/share/zsh/site-functions/_xkd" "$prefix/share/fish/vendor_completions.d/xkd.fish"; do
  check "${file#"$prefix"/} is there" test -e "$file"
done
rc=0 out=$(readelf -d "$libdir/libxkd.so" | grep SONAME)
check "its name carries the number of the interface" test "${out/libxkd.so.0]/}" != "$out"

mkdir "$work/user" && cd "$work/user" || exit 1
export LD_LIBRARY_PATH=$libdir
cat >use.c <<'END'
#include <stdio.h>
#include <xkd/xkd.h>
int main(int argc, char **argv)
{
    xkd_context *cx = xkd_context_new();
    xkd_reader *reader = NULL;
    xkd_clip_data clip;
    xkd_status status = xkd_reader_open(cx, NULL, 0, &reader);
    if (status == XKD_OK) status = xkd_reader_clip(reader, argv[argc - 1], 0, &clip);
    if (status == XKD_OK) printf("%s %d frames\n", xkd_version(), (int)clip.frame_count);
    else fprintf(stderr, "%s\n", reader ? xkd_reader_error(reader) : xkd_last_error(cx));
    xkd_reader_close(reader);
    xkd_context_free(cx);
    return status;
}
END
cp use.c use.cc
export PKG_CONFIG_PATH=$libdir/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/stage
"$prefix/bin/xkd" data synth --out videos --classes 2 --clips 1 --seconds 5 -q >"$work/synth.log" 2>&1
video=$(find videos -name '*.mp4' | head -n 1)
wanted="$("$prefix/bin/xkd" version | cut -d' ' -f2) 32 frames"
use() { # use NAME COMMAND...: builds a program and runs it with a video
  local name=$1; shift
  out=$("$@" 2>&1 && ./program "$video" 2>&1); rc=$?
  check "$name" [ "$rc:$out" = "0:$wanted" ]
  rm -f program
}
use "pkg-config, C" $cc -std=c11 -Wall -Wextra -Werror -pedantic use.c $(pkg-config --cflags --libs libxkd) -o program
use "pkg-config, C++" $cxx -std=c++11 -Wall -Wextra -Werror use.cc $(pkg-config --cflags --libs libxkd) -o program
out=$(PKG_CONFIG_SYSROOT_DIR="" pkg-config --static --libs libxkd 2>&1); rc=$?
check "pkg-config knows what the static library needs" [ "$rc" -eq 0 -a "${out/avformat/}" != "$out" ]
cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.16)
project(user LANGUAGES C CXX)
find_package(xkd 0.1 REQUIRED)
add_executable(use_c use.c)
add_executable(use_cc use.cc)
target_link_libraries(use_c xkd::xkd)
target_link_libraries(use_cc xkd::xkd)
END
out=$({ cmake -S . -B b -DCMAKE_PREFIX_PATH="$prefix" && cmake --build b; } 2>&1); rc=$?
check "find_package(xkd)" code 0
for program in use_c use_cc; do
  out=$(b/$program "$video" 2>&1); rc=$?
  check "CMake, $program" [ "$rc:$out" = "0:$wanted" ]
done
cd "$OLDPWD" || exit 1
finish
