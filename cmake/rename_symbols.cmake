# cmake -DNM= -DOBJCOPY= -DARCHIVE= -DPREFIX= -DOUTPUT= -P rename_symbols.cmake
#
# Writes a copy of an archive in which every symbol that it defines has a prefix, so that it can be linked beside
# others that define the same names: a malloc beside the C library's.
execute_process(COMMAND ${NM} --extern-only --defined-only --format=posix ${ARCHIVE}
                OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${lines}")
set(renames "")
foreach(line IN LISTS lines)
  if(line MATCHES "^([^ ]+) [A-Za-z] ")
    string(APPEND renames "${CMAKE_MATCH_1} ${PREFIX}${CMAKE_MATCH_1}\n")
  endif()
endforeach()
if(renames STREQUAL "")
  message(FATAL_ERROR "${ARCHIVE} defines no symbol")
endif()
file(WRITE ${OUTPUT}.symbols "${renames}")
execute_process(COMMAND ${OBJCOPY} --redefine-syms=${OUTPUT}.symbols ${ARCHIVE} ${OUTPUT} COMMAND_ERROR_IS_FATAL ANY)
