# Fails when the float64 reference uses what it judges: an #include beyond options, problems and Eigen, or a name of the
# code that answers which keys a query sees, where it stands, and where sequences lie.
#
#   cmake -DROOT=<source directory> -DSCRATCH=<empty directory> -P reference_independence_test.cmake
#
# Before it trusts its verdict on ROOT, it checks that it finds violations planted in SCRATCH.

set(allowed_includes
    "^(core/(problem/(options|sdpa_problem)|layer/(attend_problem|layer_view)|reference/(reference|reference_operands))\\.h|Eigen/Core|[a-z]+)$")
set(judged "VisibleKey|VisiblePairs|KeyRange|ValidKeys|PositionOffset|KeysAhead|KeysBehind|IsRagged|NumSequences|\
GetSequence|WithoutSequences|SequenceAlone|ScoreColumns|score_columns|QueryPositions|KeyPositions|ApplyNormAndRotary|\
scale\\(\\)")

# Sets `out` to the lines "FILE: LINE" of the reference below `root` that break a rule. Comments may name anything.
function(find_violations root out)
  set(violations)
  file(GLOB files RELATIVE ${root} ${root}/core/reference/reference*.h ${root}/core/reference/reference*.cc)
  foreach(file ${files})
    file(STRINGS ${root}/${file} lines REGEX "^[ \t]*#[ \t]*include|${judged}")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "//.*$" "" code "${line}")
      if(code MATCHES "include[ \t]*[<\"]([^>\"]*)[>\"]")
        set(name "${CMAKE_MATCH_1}")
        if(NOT name MATCHES "${allowed_includes}")
          list(APPEND violations "${file}: ${name}")
        endif()
      elseif(code MATCHES "(${judged})")
        list(APPEND violations "${file}: ${CMAKE_MATCH_1}")
      endif()
    endforeach()
  endforeach()
  set(${out} "${violations}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
file(WRITE ${SCRATCH}/core/reference/reference.cc
     "#include <vector>\n#include <Eigen/Core>\n#include \"core/problem/options.h\"\n// ValidKeys is not called.\n"
     "#include \"core/problem/key_visibility.h\"\n  const KeyRange range = f();\n  return ValidKeys(options, shape, b);\n")
file(WRITE ${SCRATCH}/core/reference/reference_more.h "#include \"core/layer/rotary.h\"\n  problem.scale() * x;\n")
file(WRITE ${SCRATCH}/core/reference/other.cc "#include \"core/problem/key_visibility.h\"\n")
set(planted
    "core/reference/reference.cc: core/problem/key_visibility.h"
    "core/reference/reference.cc: KeyRange"
    "core/reference/reference.cc: ValidKeys"
    "core/reference/reference_more.h: core/layer/rotary.h"
    "core/reference/reference_more.h: scale()")
find_violations(${SCRATCH} found)
if(NOT found STREQUAL planted)
  message(FATAL_ERROR "This test does not find what was planted.\nPlanted: ${planted}\nFound:   ${found}")
endif()

find_violations(${ROOT} found)
if(found)
  list(JOIN found "\n  " found)
  message(FATAL_ERROR "The reference uses what it judges (see the top of this test):\n  ${found}")
endif()
