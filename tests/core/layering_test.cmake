# Fails when an #include points against the direction of dependencies: proto -> nothing; formats -> Abseil,
# nlohmann-json, OpenSSL (for PEM files); core -> Abseil, Eigen, Highway; server -> proto, formats, core; client -> proto, formats (not its
# installed library, lib/); tests -> everything.
#
#   cmake -DROOT=<source directory> -DSCRATCH=<empty directory> -P layering_test.cmake
#
# Before it trusts its verdict on ROOT, it checks that it finds violations planted in SCRATCH.

# Includes with a directory in their name that a layer may use; those without one are the standard library's.
set(standard "(sys|bits|arpa|netinet|linux)/")
set(allowed_in_core "^(${standard}|absl/|Eigen/|hwy/|core/)")
set(allowed_in_formats "^(${standard}|absl/|nlohmann/|openssl/|formats/)")
set(forbidden_in_server "^(client|tests)/")
set(forbidden_in_client/lib "^(server|tests|core|formats)/")
set(forbidden_in_client/io "^(server|tests|core)/")
set(forbidden_in_client/draw "^(server|tests|core|client/cli)/")
set(forbidden_in_client/cli "^(server|tests|core)/")

# Sets `out` to the lines "FILE includes NAME" that break a rule below `root`.
function(find_violations root out)
  set(violations)
  foreach(layer core formats server client/lib client/io client/draw client/cli)
    file(GLOB_RECURSE files RELATIVE ${root} ${root}/${layer}/*.h ${root}/${layer}/*.cc)
    if(NOT files)
      message(FATAL_ERROR "There are no sources in ${root}/${layer}: has the layer moved? This test looks there.")
    endif()
    foreach(file ${files})
      file(STRINGS ${root}/${file} lines REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"]")
      foreach(line ${lines})
        string(REGEX REPLACE "^[^<\"]*[<\"]([^>\"]*).*$" "\\1" name "${line}")
        if(DEFINED allowed_in_${layer})
          if(name MATCHES "/" AND NOT name MATCHES "${allowed_in_${layer}}")
            list(APPEND violations "${file} includes ${name}")
          endif()
        elseif(name MATCHES "${forbidden_in_${layer}}")
          list(APPEND violations "${file} includes ${name}")
        endif()
      endforeach()
    endforeach()
  endforeach()
  set(${out} "${violations}" PARENT_SCOPE)
endfunction()

set(planted
    "core/a.cc includes grpcpp/grpcpp.h"
    "core/a.cc includes google/protobuf/message.h"
    "core/deep/er/b.h includes spdlog/spdlog.h"
    "core/deep/er/b.h includes server/rpc/job.h"
    "core/deep/er/b.h includes attend/v1/tensor.pb.h"
    "formats/b.cc includes core/tensor/data_type.h"
    "formats/b.cc includes grpcpp/grpcpp.h"
    "server/c.cc includes client/lib/client.h"
    "client/lib/d.cc includes core/base/error.h"
    "client/lib/d.cc includes formats/safetensors/safetensors_header.h"
    "client/io/e.cc includes core/tensor/data_type.h"
    "client/draw/g.cc includes client/cli/results/presenter.h"
    "client/cli/f.cc includes server/rpc/job.h"
    "client/cli/f.cc includes core/reference/reference.h"
    "client/cli/f.cc includes core/runtime/executor.h")
file(REMOVE_RECURSE ${SCRATCH})
file(WRITE ${SCRATCH}/core/fine.cc "#include <vector>\n#include <Eigen/Core>\n#include \"absl/status/status.h\"\n")
file(WRITE ${SCRATCH}/formats/fine.cc "#include <nlohmann/json.hpp>\n#include \"absl/status/status.h\"\n")
file(WRITE ${SCRATCH}/client/cli/fine.cc "#include <grpcpp/grpcpp.h>\n#include \"formats/layers/layer_reader.h\"\n")
foreach(violation ${planted})
  string(REGEX MATCH "^([^ ]*) includes (.*)$" _ "${violation}")
  file(APPEND ${SCRATCH}/${CMAKE_MATCH_1} "#include \"${CMAKE_MATCH_2}\"\n")
endforeach()
find_violations(${SCRATCH} found)
if(NOT found STREQUAL planted)
  message(FATAL_ERROR "This test does not find what was planted.\nPlanted: ${planted}\nFound:   ${found}")
endif()

find_violations(${ROOT} found)
if(found)
  list(JOIN found "\n  " found)
  message(FATAL_ERROR "Against the direction of dependencies (see the top of this test):\n  ${found}")
endif()
