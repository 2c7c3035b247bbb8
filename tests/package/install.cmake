# Installs the build into an empty staging folder.
file(REMOVE_RECURSE ${STAGE})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${TREE} --prefix ${STAGE} COMMAND_ERROR_IS_FATAL ANY)
