# Given to CMake as CMAKE_PROJECT_INCLUDE by mutants.py: measures which lines of the product each test executes, and
# compiles the product quickly. The tests' own objects stay those of the preset, which the compiler cache has.

function(attend_instrument)
  foreach(directory formats core server client)
    get_property(targets DIRECTORY ${PROJECT_SOURCE_DIR}/${directory} PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target ${targets})
      get_target_property(type ${target} TYPE)
      if(NOT type MATCHES "LIBRARY$|^EXECUTABLE$" OR type STREQUAL "INTERFACE_LIBRARY")
        continue()  # Such as a custom target that writes a file.
      endif()
      # The specs leave out the lines of other people's headers, of which every object has hundreds. In a file, because
      # ccache does not know the options in it. Induction variables are left alone: the compiler would use counters as
      # loop indices, and other threads change counters. Atomic ones are right too, and make kernels twenty times slower.
      target_compile_options(${target} PRIVATE -O1 -fno-ivopts --coverage -specs=${ATTEND_MUTANTS_SPECS})
    endforeach()
  endforeach()
  target_link_options(attend_flags INTERFACE --coverage)
  # Programs outside of the tree that link the installed library (docs/clients/cpp.md) have no attend_flags.
  target_link_options(attend_client INTERFACE --coverage)
endfunction()

cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL attend_instrument)
