# Two cores build slowly: use ccache where it is installed.
find_program(ACCELMM_CCACHE ccache)
mark_as_advanced(ACCELMM_CCACHE)
if(ACCELMM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ACCELMM_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${ACCELMM_CCACHE})
endif()
