# Fails when an #include points against the direction of dependencies: proto -> nothing; formats -> Abseil,
# nlohmann-json, OpenSSL (for PEM files), CLI11 (for command_line); core -> Abseil, Eigen, Highway; server -> proto, formats, core; client -> proto, formats (not its
# installed library, lib/); tests -> everything. Within the core:
# base < tensor < kernels, runtime, problem < compute < layer; the reference sees problems and layers, not how they are
# computed (reference_independence_test.cmake says more). Of external libraries, Eigen belongs to the reference and
# Highway to the kernels. Within the server: base < wire < identity < rpc < http < connect < layers < requests < layer_store < services <
# metrics < config, and on top the files of server/ itself.
#
#   cmake -DROOT=<source directory> -DSCRATCH=<empty directory> -P layering_test.cmake
#
# Before it trusts its verdict on ROOT, it checks that it finds violations planted in SCRATCH.

cmake_minimum_required(VERSION 3.25)

# Includes with a directory in their name that a layer may use; those without one are the standard library's.
set(standard "(sys|bits|arpa|netinet|linux)/")
set(core_modules base tensor kernels runtime problem compute layer reference)
set(allowed_in_core/base "^(${standard}|absl/|core/base/)")
set(allowed_in_core/tensor "^(${standard}|absl/|core/(base|tensor)/)")
set(allowed_in_core/kernels "^(${standard}|absl/|hwy/|core/(base|tensor|kernels)/)")
set(allowed_in_core/runtime "^(${standard}|absl/|core/(base|tensor|runtime)/)")
set(allowed_in_core/problem "^(${standard}|absl/|core/(base|tensor|problem)/)")
set(allowed_in_core/compute "^(${standard}|absl/|core/(base|tensor|kernels|runtime|problem|compute)/)")
set(allowed_in_core/layer "^(${standard}|absl/|core/(base|tensor|kernels|runtime|problem|compute|layer)/)")
set(allowed_in_core/reference "^(Eigen/|core/(problem|layer|reference)/)")
set(allowed_in_formats "^(${standard}|absl/|nlohmann/|openssl/|CLI/|formats/)")
set(forbidden_in_server "^(client|tests)/")
set(server_modules base wire identity rpc http connect layers requests layer_store services metrics config)
set(above "[^/]*$")
set(modules ${server_modules})
list(REVERSE modules)
foreach(module ${modules})
  set(forbidden_in_server/${module} "^server/(${above})")
  string(PREPEND above "${module}/|")
endforeach()
set(forbidden_in_client/lib "^(server|tests|core|formats)/")
set(forbidden_in_client/io "^(server|tests|core)/")
set(forbidden_in_client/draw "^(server|tests|core|client/cli)/")
set(forbidden_in_client/text "^(server|tests|core|client/cli)/")
set(forbidden_in_client/probe "^(server|tests|core|client/cli|client/lib)/")
set(forbidden_in_client/demo "^(server|tests|core|client/cli|client/lib)/")
set(forbidden_in_client/cli "^(server|tests|core)/")

# Sets `out` to the lines "FILE includes NAME" that break a rule below `root`.
function(find_violations root out)
  set(violations)
  file(GLOB folders RELATIVE ${root}/core ${root}/core/*)
  foreach(folder ${folders})
    if(IS_DIRECTORY ${root}/core/${folder} AND NOT folder IN_LIST core_modules)
      list(APPEND violations "core/${folder} is none of the core's modules")
    endif()
  endforeach()
  list(TRANSFORM core_modules PREPEND core/ OUTPUT_VARIABLE layers)
  list(TRANSFORM server_modules PREPEND server/ OUTPUT_VARIABLE server_layers)
  foreach(layer ${layers} formats server ${server_layers} client/lib client/io client/draw client/text client/probe client/demo client/cli)
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
    "core/misc is none of the core's modules"
    "core/base/a.cc includes grpcpp/grpcpp.h"
    "core/base/a.cc includes core/tensor/data_type.h"
    "core/tensor/a.cc includes google/protobuf/message.h"
    "core/tensor/a.cc includes core/kernels/kernel_table.h"
    "core/kernels/deep/er/b.h includes spdlog/spdlog.h"
    "core/kernels/deep/er/b.h includes core/runtime/executor.h"
    "core/runtime/a.h includes core/problem/options.h"
    "core/runtime/a.h includes hwy/highway.h"
    "core/problem/a.cc includes core/compute/compute_sdpa.h"
    "core/problem/a.cc includes core/kernels/instruction_set.h"
    "core/problem/a.cc includes Eigen/Core"
    "core/compute/a.cc includes server/rpc/job.h"
    "core/compute/a.cc includes core/layer/attend_problem.h"
    "core/layer/a.h includes attend/v1/tensor.pb.h"
    "core/layer/a.h includes core/reference/reference.h"
    "core/reference/a.cc includes core/compute/compute_sdpa.h"
    "formats/b.cc includes core/tensor/data_type.h"
    "formats/b.cc includes grpcpp/grpcpp.h"
    "server/c.cc includes client/lib/client.h"
    "server/base/c.h includes server/wire/wire_format.h"
    "server/wire/c.h includes server/attention_server.h"
    "server/identity/c.h includes server/rpc/job.h"
    "server/rpc/c.h includes server/requests/decoders.h"
    "server/http/c.h includes server/layers/layer.h"
    "server/connect/c.h includes server/layers/layer.h"
    "server/layers/c.h includes server/requests/decoders.h"
    "server/requests/c.h includes server/layer_store/folder.h"
    "server/layer_store/c.h includes server/services/upload_slots.h"
    "server/services/c.h includes server/metrics/server_metrics.h"
    "server/metrics/c.h includes server/config/flags.h"
    "server/config/c.h includes server/main.h"
    "client/lib/d.cc includes core/base/error.h"
    "client/lib/d.cc includes formats/safetensors/safetensors_header.h"
    "client/io/e.cc includes core/tensor/data_type.h"
    "client/draw/g.cc includes client/cli/results/presenter.h"
    "client/text/i.cc includes client/cli/connection/connection_flags.h"
    "client/probe/h.cc includes client/cli/connection/connection_flags.h"
    "client/demo/j.cc includes client/cli/commands/report.h"
    "client/cli/f.cc includes server/rpc/job.h"
    "client/cli/f.cc includes core/reference/reference.h"
    "client/cli/f.cc includes core/runtime/executor.h")
file(REMOVE_RECURSE ${SCRATCH})
file(WRITE ${SCRATCH}/core/layer/fine.cc
     "#include <vector>\n#include \"absl/status/status.h\"\n#include \"core/base/error.h\"\n")
file(WRITE ${SCRATCH}/core/reference/fine.cc "#include <Eigen/Core>\n#include \"core/problem/options.h\"\n")
file(WRITE ${SCRATCH}/server/config/fine.cc "#include \"server/base/limits.h\"\n#include \"server/config/flags.h\"\n")
file(WRITE ${SCRATCH}/formats/fine.cc "#include <nlohmann/json.hpp>\n#include \"absl/status/status.h\"\n")
file(WRITE ${SCRATCH}/client/cli/fine.cc "#include <grpcpp/grpcpp.h>\n#include \"formats/layers/layer_reader.h\"\n")
file(MAKE_DIRECTORY ${SCRATCH}/core/misc)
foreach(violation ${planted})
  if(NOT violation MATCHES "^([^ ]*) includes (.*)$")
    continue()
  endif()
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
