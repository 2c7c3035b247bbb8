# Builds one source with the flags that pkg-config gives for PACKAGE, and runs the program. C is C99 to the letter: the
# C ABI promises no more.
set(ENV{PKG_CONFIG_PATH} ${STAGE}/${LIBDIR}/pkgconfig)
execute_process(COMMAND pkg-config --cflags --libs ${PACKAGE}
  OUTPUT_VARIABLE package_flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(SOURCE MATCHES "\\.c$")
  set(compile ${C} -std=c99 -pedantic-errors -Wall -Wextra -Werror)
  separate_arguments(own_flags UNIX_COMMAND "${C_FLAGS}")
else()
  set(compile ${CXX} -std=c++23)
  separate_arguments(own_flags UNIX_COMMAND "${CXX_FLAGS}")
endif()
separate_arguments(package_flags UNIX_COMMAND "${package_flags}")

file(REMOVE_RECURSE ${BUILD})
file(MAKE_DIRECTORY ${BUILD})
execute_process(COMMAND ${compile} ${own_flags} -o ${BUILD}/program ${SOURCE} ${package_flags}
  COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
set(ENV{LD_LIBRARY_PATH} ${STAGE}/${LIBDIR})
execute_process(COMMAND ${BUILD}/program COMMAND_ERROR_IS_FATAL ANY)
