# Everything attend builds on, all from Debian 12 (scripts/install-dependencies.sh installs it).

find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(Eigen3 CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)

if(NOT ATTEND_CORE_ONLY)
  find_package(Protobuf REQUIRED)
  find_package(spdlog CONFIG REQUIRED)
  find_package(nlohmann_json CONFIG REQUIRED)
  find_package(CLI11 CONFIG REQUIRED)
  find_package(OpenSSL REQUIRED)
  find_package(Boost REQUIRED)  # Headers alone.
  # Its CMake package would ask for civetweb and curl, which only its other libraries need.
  pkg_check_modules(prometheus_cpp REQUIRED IMPORTED_TARGET prometheus-cpp-core)
endif()
if(NOT ATTEND_CORE_ONLY AND NOT ATTEND_FAKE_GRPC)
  find_package(gRPC CONFIG REQUIRED)
  find_package(ZLIB REQUIRED)
  pkg_check_modules(cairo REQUIRED IMPORTED_TARGET cairo-png cairo-svg)
endif()

if(ATTEND_BUILD_TESTS)
  find_package(GTest CONFIG REQUIRED)
  if(NOT CMAKE_CROSSCOMPILING)  # An emulator is not worth measuring.
    find_package(benchmark CONFIG REQUIRED)
  endif()
  find_package(nlohmann_json CONFIG REQUIRED)
  find_package(Python3 COMPONENTS Interpreter)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
