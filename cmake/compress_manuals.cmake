# Run by CPack before it makes packages: Debian's manual pages are compressed.
file(GLOB_RECURSE manuals ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/man/*.1 ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/man/*.8)
if(manuals)
  execute_process(COMMAND gzip --best --no-name --force ${manuals} COMMAND_ERROR_IS_FATAL ANY)
endif()
