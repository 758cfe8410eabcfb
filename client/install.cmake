# Installs the C++ client for others to build on (component `development`):
#
#   find_package(attend REQUIRED)
#   target_link_libraries(my_program attend::client)
#
# Headers keep the names they have here: `#include "client/lib/client.h"`, `#include "attend/v1/tensor.pb.h"`.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(headers_dir ${CMAKE_INSTALL_INCLUDEDIR}/attend)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attend)
set(generated_dir ${PROJECT_BINARY_DIR}/generated)

set(exported attend_client attend_proto attend_rpc_proto attend_grpc_protocols)
set_target_properties(attend_client PROPERTIES EXPORT_NAME client)
set_target_properties(attend_proto PROPERTIES EXPORT_NAME proto)
set_target_properties(attend_rpc_proto PROPERTIES EXPORT_NAME rpc_proto)
set_target_properties(attend_grpc_protocols PROPERTIES EXPORT_NAME grpc_protocols)
target_compile_features(attend_client PUBLIC cxx_std_20)

install(TARGETS ${exported} EXPORT attend ARCHIVE COMPONENT development INCLUDES DESTINATION ${headers_dir})
install(FILES lib/attend_stream.h lib/client.h lib/element_type.h lib/layer_client.h lib/server_error.h
              lib/server_timing.h lib/tensor.h
        DESTINATION ${headers_dir}/client/lib COMPONENT development)
install(FILES ${generated_dir}/attend/v1/tensor.pb.h ${generated_dir}/attend/v1/attention_service.pb.h
              ${generated_dir}/attend/v1/layer_service.pb.h ${generated_dir}/attend/v1/layer_service.grpc.pb.h
              ${generated_dir}/attend/v1/attention_service.grpc.pb.h ${generated_dir}/attend/v1/tensor.grpc.pb.h
        DESTINATION ${headers_dir}/attend/v1 COMPONENT development)
install(FILES ${generated_dir}/google/rpc/status.pb.h DESTINATION ${headers_dir}/google/rpc COMPONENT development)
install(FILES ${PROJECT_SOURCE_DIR}/proto/google/rpc/status.proto
        DESTINATION ${CMAKE_INSTALL_DATADIR}/attend/proto/google/rpc COMPONENT development)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto/attend DESTINATION ${CMAKE_INSTALL_DATADIR}/attend/proto
        COMPONENT development FILES_MATCHING PATTERN *.proto)

install(EXPORT attend NAMESPACE attend:: FILE attendTargets.cmake DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(attendConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/attendConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/attendConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attendConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/attendConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)
