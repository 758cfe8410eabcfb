# The one way to declare targets. Sources are named, never globbed.
#
#   attend_library(NAME attend_core SRCS a.cc b.cc DEPS absl::status)
#   attend_binary(NAME attend-server SRCS main.cc DEPS attend_server)
#   attend_test(NAME error_test SRCS error_test.cc DEPS attend_core LABELS core)
#   attend_python_test(NAME errors_test SCRIPT errors_test.py NEEDS attend-server LABELS integration)
#   attend_fuzz_target(NAME sdpa_fuzz SRCS sdpa_fuzz.cc DEPS attend_core CORPUS sdpa LABELS core)
#   attend_proto_library(NAME attend_proto PROTOS attend/v1/tensor.proto ... [GRPC])

add_library(attend_flags INTERFACE)
target_include_directories(attend_flags INTERFACE ${PROJECT_SOURCE_DIR})
# Contraction would let the compiler choose where to fuse multiply and add, and with it the result's bits: the kernels
# say themselves where they fuse.
target_compile_options(attend_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -ffp-contract=off
                       -Wno-missing-field-initializers)  # Option structs are meant to be given in part.
if(ATTEND_WERROR)
  target_compile_options(attend_flags INTERFACE -Werror)
endif()
if(ATTEND_SANITIZE)
  target_compile_options(attend_flags INTERFACE -fsanitize=${ATTEND_SANITIZE} -fno-sanitize-recover=all
                                                -fno-omit-frame-pointer)
  target_link_options(attend_flags INTERFACE -fsanitize=${ATTEND_SANITIZE})
endif()
if(ATTEND_FUZZ)
  target_compile_options(attend_flags INTERFACE -fsanitize=fuzzer-no-link)  # Coverage, for libFuzzer to follow.
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(attend_flags INTERFACE -Wthread-safety -Werror=thread-safety)
endif()

# The seconds after which a test counts as hanging. A sanitized one takes several times as long.
function(attend_timeout variable seconds)
  if(ATTEND_SANITIZE)
    math(EXPR seconds "3 * ${seconds}")
  endif()
  set(${variable} ${seconds} PARENT_SCOPE)
endfunction()

# All that the build generates for the compiler to read: enough for `make lint`, which compiles nothing.
add_custom_target(attend_generated)
function(attend_generated name)
  add_custom_target(${name}_generated DEPENDS ${ARGN})
  add_dependencies(attend_generated ${name}_generated)
endfunction()

function(attend_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_library(${ARG_NAME} STATIC ${ARG_SRCS})
  # Who uses an installed library brings their own flags.
  target_link_libraries(${ARG_NAME} PUBLIC $<BUILD_INTERFACE:attend_flags> ${ARG_DEPS})
endfunction()

function(attend_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE attend_flags ${ARG_DEPS})
endfunction()

# Installs a program's manual page and completions (component NAME-shell), which it prints itself when it is called with the words behind MANUAL and
# COMPLETIONS (followed by the shell).
function(attend_shell_files)
  cmake_parse_arguments(ARG "" "NAME;SECTION" "MANUAL;COMPLETIONS" ${ARGN})
  include(GNUInstallDirs)
  set(out ${PROJECT_BINARY_DIR}/share)
  set(run ${ARG_NAME})  # As a target's name, so that an emulator runs it where one is needed.
  if(ATTEND_SANITIZE)
    set(run ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0 $<TARGET_FILE:${ARG_NAME}>)
  endif()
  set(files ${out}/${ARG_NAME}.${ARG_SECTION} ${out}/${ARG_NAME}.bash ${out}/${ARG_NAME}.zsh ${out}/${ARG_NAME}.fish)
  add_custom_command(
    OUTPUT ${files}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${out}
    COMMAND ${run} ${ARG_MANUAL} > ${out}/${ARG_NAME}.${ARG_SECTION}
    COMMAND ${run} ${ARG_COMPLETIONS} bash > ${out}/${ARG_NAME}.bash
    COMMAND ${run} ${ARG_COMPLETIONS} zsh > ${out}/${ARG_NAME}.zsh
    COMMAND ${run} ${ARG_COMPLETIONS} fish > ${out}/${ARG_NAME}.fish
    DEPENDS ${ARG_NAME}
    VERBATIM)
  add_custom_target(${ARG_NAME}-shell-files ALL DEPENDS ${files})
  install(FILES ${out}/${ARG_NAME}.${ARG_SECTION} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${ARG_SECTION} COMPONENT ${ARG_NAME}-shell)
  set(data ${CMAKE_INSTALL_DATADIR})
  install(FILES ${out}/${ARG_NAME}.bash DESTINATION ${data}/bash-completion/completions RENAME ${ARG_NAME} COMPONENT ${ARG_NAME}-shell)
  install(FILES ${out}/${ARG_NAME}.zsh DESTINATION ${data}/zsh/vendor-completions RENAME _${ARG_NAME} COMPONENT ${ARG_NAME}-shell)
  install(FILES ${out}/${ARG_NAME}.fish DESTINATION ${data}/fish/vendor_completions.d COMPONENT ${ARG_NAME}-shell)
endfunction()

# Every test has a target of its own name that builds what the test runs: `make check T=NAME` builds that. Tests with the
# label `slow` are no part of `make check`: those that start servers, and those that say so.
function(attend_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  attend_timeout(timeout ${ARG_TIMEOUT})
  if("attend_server_test_support" IN_LIST ARG_DEPS)
    list(APPEND ARG_LABELS slow)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE attend_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # The test's own code compiles in three quarters of the time so; what it tests keeps -O3.
  target_compile_options(${ARG_NAME} PRIVATE $<$<CONFIG:Release>:-O1>)
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${timeout})
endfunction()

# The tests' Python is Debian's, because that is the one that Debian's grpcio, protobuf and NumPy are installed for.
set(ATTEND_PYTHON /usr/bin/python3 CACHE FILEPATH "Interpreter of the Python tests")

# A unittest file, and the targets it NEEDS. It finds the sources, this build and the tools through the environment; see
# tests/support/.
function(attend_python_test)
  cmake_parse_arguments(ARG "" "NAME;SCRIPT;TIMEOUT" "LABELS;NEEDS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  attend_timeout(timeout ${ARG_TIMEOUT})
  # Compiling the server's program takes longer than such a test.
  if(ARG_NEEDS MATCHES "attend-server")
    list(APPEND ARG_LABELS slow)
  endif()
  add_custom_target(${ARG_NAME})
  if(ARG_NEEDS)
    add_dependencies(${ARG_NAME} ${ARG_NEEDS})
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${ATTEND_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT}
           WORKING_DIRECTORY ${PROJECT_BINARY_DIR})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${timeout} ENVIRONMENT
    "ATTEND_SOURCE_DIR=${PROJECT_SOURCE_DIR};ATTEND_BUILD_DIR=${PROJECT_BINARY_DIR};ATTEND_PROTOC=$<TARGET_FILE:protobuf::protoc>;PYTHONPATH=${PROJECT_SOURCE_DIR}/tests/support:${PROJECT_BINARY_DIR}/generated/python;PYTHONDONTWRITEBYTECODE=1")
endfunction()

# Generates Python from every file given to attend_proto_library so far, into generated/python.
function(attend_python_stubs)
  cmake_parse_arguments(ARG "" "NAME" "" ${ARGN})
  set(out ${PROJECT_BINARY_DIR}/generated/python)
  file(MAKE_DIRECTORY ${out})
  get_property(protos GLOBAL PROPERTY ATTEND_PROTOS)
  set(generated)
  foreach(entry ${protos})
    string(REPLACE "|" ";" entry ${entry})
    list(GET entry 0 import_dir)
    list(GET entry 1 proto)
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(files ${out}/${stem}_pb2.py ${out}/${stem}_pb2_grpc.py)
    add_custom_command(
      OUTPUT ${files}
      COMMAND protobuf::protoc -I${import_dir} --python_out=${out} --grpc_out=${out}
              --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_python_plugin> ${proto}
      DEPENDS ${import_dir}/${proto}
      VERBATIM)
    list(APPEND generated ${files})
  endforeach()
  add_custom_target(${ARG_NAME} ALL DEPENDS ${generated})
endfunction()

if(ATTEND_FUZZ)
  add_custom_target(attend_fuzz_targets)  # All of them, for the preset `fuzz`.
endif()

# SRCS define LLVMFuzzerTestOneInput. NAME_replay is an ordinary test that runs tests/fuzz/corpus/CORPUS under every
# preset; with ATTEND_FUZZ (the preset `fuzz`), NAME is the fuzzer itself.
function(attend_fuzz_target)
  cmake_parse_arguments(ARG "" "NAME;CORPUS" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${ARG_NAME}_replay ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
  target_link_libraries(${ARG_NAME}_replay PRIVATE attend_flags ${ARG_DEPS})
  add_test(NAME ${ARG_NAME}_replay COMMAND ${ARG_NAME}_replay ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${ARG_CORPUS})
  attend_timeout(timeout 300)
  set_tests_properties(${ARG_NAME}_replay PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${timeout})
  if(ATTEND_FUZZ)
    add_executable(${ARG_NAME} ${ARG_SRCS})
    target_link_libraries(${ARG_NAME} PRIVATE attend_flags ${ARG_DEPS})
    target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    add_dependencies(attend_fuzz_targets ${ARG_NAME})
  endif()
endfunction()

# Generates C++ from PROTOS (paths below IMPORT_DIR, default proto/). With GRPC, service stubs too, unless gRPC is a fake:
# the server needs none.
function(attend_proto_library)
  cmake_parse_arguments(ARG "GRPC" "NAME;IMPORT_DIR" "PROTOS;DEPS" ${ARGN})
  if(NOT ARG_IMPORT_DIR)
    set(ARG_IMPORT_DIR ${PROJECT_SOURCE_DIR}/proto)
  endif()
  if(ATTEND_FAKE_GRPC)
    set(ARG_GRPC OFF)
  endif()
  set(out ${PROJECT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(generated)
  foreach(proto ${ARG_PROTOS})
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(files ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    set(plugin_args)
    if(ARG_GRPC)
      list(APPEND files ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      set(plugin_args --grpc_out=${out} --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${files}
      COMMAND protobuf::protoc -I${ARG_IMPORT_DIR} --cpp_out=${out} ${plugin_args} ${proto}
      DEPENDS ${ARG_IMPORT_DIR}/${proto}
      VERBATIM)
    list(APPEND generated ${files})
  endforeach()
  # For attend_python_stubs.
  list(TRANSFORM ARG_PROTOS PREPEND "${ARG_IMPORT_DIR}|")
  set_property(GLOBAL APPEND PROPERTY ATTEND_PROTOS ${ARG_PROTOS})
  attend_generated(${ARG_NAME} ${generated})
  add_library(${ARG_NAME} STATIC ${generated})
  target_include_directories(${ARG_NAME} SYSTEM PUBLIC $<BUILD_INTERFACE:${out}>)
  target_link_libraries(${ARG_NAME} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(${ARG_NAME} PUBLIC gRPC::grpc++)
  endif()
  if(ATTEND_SANITIZE)
    target_compile_options(${ARG_NAME} PRIVATE -fsanitize=${ATTEND_SANITIZE})
  endif()
endfunction()
