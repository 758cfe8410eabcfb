# Cross-compiles the core for 64-bit Arm with Debian's compiler, and runs what was built under qemu's user emulation.
# The libraries are Debian's too: scripts/arm64-sysroot.sh puts them where this file looks.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

# Neoverse N1: no SVE, which is disabled in core/kernels/targets.h anyway, and a processor that people rent. The compiler
# brings the C and C++ libraries; -L is where their loader is.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu neoverse-n1 -L /usr/aarch64-linux-gnu)

# Never this machine's own libraries and headers; always its own programs.
get_filename_component(ATTEND_ARM64_ROOT ${CMAKE_CURRENT_LIST_DIR}/../build/arm64-sysroot ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH ${ATTEND_ARM64_ROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${ATTEND_ARM64_ROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${ATTEND_ARM64_ROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)

# Abseil's libraries need one another and are not where the loader looks: DT_RPATH, unlike its successor, counts for them
# too.
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,--disable-new-dtags)
