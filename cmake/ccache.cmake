# Two cores build slowly: use ccache where it is installed.
find_program(ACCELMM_CCACHE ccache)
mark_as_advanced(ACCELMM_CCACHE)
if(ACCELMM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What is compiled with a precompiled header is remembered only if it may not depend on the time, which it does not.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${ACCELMM_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${ACCELMM_CCACHE})
endif()
