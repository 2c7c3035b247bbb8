# Warnings for our own code only: linked PRIVATE, never exported.
add_library(accelmm_warnings INTERFACE)
target_compile_options(accelmm_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wcast-align -Wimplicit-fallthrough
  $<$<BOOL:${ACCELMM_WERROR}>:-Werror>
  $<$<COMPILE_LANGUAGE:CXX>:-Wconversion -Wsign-conversion -Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wduplicated-cond -Wlogical-op>
  $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety>)
