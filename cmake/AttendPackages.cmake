# Debian packages: attend-server (with its unit), attend (the command), libattend-client-dev. `scripts/packages.sh` builds
# them; docs/packages.md says what they do. The binaries need the prefix /usr (preset `package`).

if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  return()
endif()

set(ATTEND_MAINTAINER "The attend authors <attend@packages.invalid>" CACHE STRING "Who answers for the Debian packages")
set(debian ${PROJECT_SOURCE_DIR}/deploy/debian)

# The time of the sources: the same files give the same packages.
execute_process(COMMAND git log -1 --format=%cD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                OUTPUT_VARIABLE date OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT date)
  string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
endif()
configure_file(${debian}/changelog.in ${PROJECT_BINARY_DIR}/changelog @ONLY)
execute_process(COMMAND gzip --best --no-name --keep --force ${PROJECT_BINARY_DIR}/changelog COMMAND_ERROR_IS_FATAL ANY)

# Components, and the package that each goes into. The paths below /etc and /lib are Debian 12's.
set(documents ${PROJECT_BINARY_DIR}/changelog.gz ${debian}/copyright)
install(FILES ${documents} DESTINATION /usr/share/doc/attend-server COMPONENT service)
install(FILES ${PROJECT_SOURCE_DIR}/docs/packages.md DESTINATION /usr/share/doc/attend-server RENAME README.md
        COMPONENT service)
install(FILES ${documents} DESTINATION /usr/share/doc/attend COMPONENT command)
install(FILES ${documents} DESTINATION /usr/share/doc/libattend-client-dev COMPONENT library)
install(FILES ${debian}/attend-server.service DESTINATION /lib/systemd/system COMPONENT service)
install(FILES ${debian}/attend-server.sysusers DESTINATION /usr/lib/sysusers.d RENAME attend-server.conf COMPONENT service)
install(FILES ${debian}/attend-server.conf DESTINATION /etc/attend COMPONENT service)

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON)  # For absolute paths.
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_NAME attend)
set(CPACK_PACKAGE_CONTACT ${ATTEND_MAINTAINER})
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/compress_manuals.cmake)
set(CPACK_COMPONENTS_ALL server attend-server-shell service client attend-shell command development library)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
if(CMAKE_CROSSCOMPILING AND CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
endif()

set(CPACK_DEBIAN_SERVER_GROUP_PACKAGE_NAME attend-server)
set(CPACK_DEBIAN_SERVER_GROUP_PACKAGE_SECTION net)
set(CPACK_DEBIAN_SERVER_GROUP_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_SERVER_GROUP_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers, passwd, procps")
file(WRITE ${PROJECT_BINARY_DIR}/conffiles "/etc/attend/attend-server.conf\n")
set(CPACK_DEBIAN_SERVER_GROUP_PACKAGE_CONTROL_EXTRA
    ${PROJECT_BINARY_DIR}/conffiles ${debian}/postinst ${debian}/prerm ${debian}/postrm)
set(CPACK_DEBIAN_SERVER_GROUP_DESCRIPTION "attention as a service: gRPC server
Computes transformer attention for programs in any language, with the same
bits on every machine. Runs as a service that listens on loopback.")

set(CPACK_DEBIAN_COMMAND_GROUP_PACKAGE_NAME attend)
set(CPACK_DEBIAN_COMMAND_GROUP_PACKAGE_SECTION science)
set(CPACK_DEBIAN_COMMAND_GROUP_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMMAND_GROUP_PACKAGE_DEPENDS fonts-dejavu-core)
set(CPACK_DEBIAN_COMMAND_GROUP_DESCRIPTION "attention as a service: command
Sends embeddings, or query, key and value, to an attend server, and shows,
plots or writes the result. Uploads layers by name.")

set(CPACK_DEBIAN_LIBRARY_GROUP_PACKAGE_NAME libattend-client-dev)
set(CPACK_DEBIAN_LIBRARY_GROUP_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBRARY_GROUP_PACKAGE_DEPENDS
    "libgrpc++-dev, libprotobuf-dev, libabsl-dev, protobuf-compiler-grpc")
set(CPACK_DEBIAN_LIBRARY_GROUP_DESCRIPTION "attention as a service: C++ client library
A static library with deadlines, retries, streams and errors as a struct,
found by CMake's find_package(attend), and the protocol's files.")

include(CPack)
cpack_add_component_group(server_group)
cpack_add_component_group(command_group)
cpack_add_component_group(library_group)
cpack_add_component(server GROUP server_group)
cpack_add_component(attend-server-shell GROUP server_group)
cpack_add_component(service GROUP server_group)
cpack_add_component(client GROUP command_group)
cpack_add_component(attend-shell GROUP command_group)
cpack_add_component(command GROUP command_group)
cpack_add_component(development GROUP library_group)
cpack_add_component(library GROUP library_group)
