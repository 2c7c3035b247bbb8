# A source file without content: it lets a layer or an archive exist before its first source does.
set(ACCELMM_EMPTY_SOURCE ${PROJECT_BINARY_DIR}/empty.cpp)
if(NOT EXISTS ${ACCELMM_EMPTY_SOURCE})
  file(WRITE ${ACCELMM_EMPTY_SOURCE} "// No sources yet.\n")
endif()

# accelmm_add_layer(NAME [DEPENDS layer...] [LIBRARIES lib...] [FOLDERS folder...])
#
# One static library per layer, accelmm_<name>, from all sources of the current folder and of the sub-folders named.
# A layer links only the layers it may include (docs/architecture.md), so an upward call does not link.
function(accelmm_add_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES;FOLDERS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(folder IN LISTS ARG_FOLDERS)
    file(GLOB more CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
    list(APPEND sources ${more})
  endforeach()
  if(NOT sources)
    set(sources ${ACCELMM_EMPTY_SOURCE})
  endif()
  add_library(accelmm_${name} STATIC ${sources})
  set_target_properties(accelmm_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(accelmm_${name}
    PUBLIC ${PROJECT_SOURCE_DIR}/include PRIVATE ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPENDS PREPEND accelmm_)
  target_link_libraries(accelmm_${name} PUBLIC ${ARG_DEPENDS} ${ARG_LIBRARIES} PRIVATE accelmm_warnings)
  # A third of the time of a debug build is the standard library's headers. The optimised builds do without: there each
  # source includes what it uses, or does not compile.
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_BUILD_TYPE STREQUAL Debug)
    target_compile_options(accelmm_${name} PRIVATE -fpch-preprocess)
    if(name STREQUAL base)
      target_precompile_headers(accelmm_base PRIVATE
        <algorithm> <array> <atomic> <bit> <cstddef> <cstdint> <cstring> <expected> <functional> <limits> <map> <memory>
        <mutex> <new> <optional> <span> <string> <string_view> <thread> <type_traits> <utility> <vector>)
    else()
      target_precompile_headers(accelmm_${name} REUSE_FROM accelmm_base)
    endif()
  endif()
endfunction()

# accelmm_add_archive(NAME LAYERS layer...)
#
# One static library, accelmm_<name>, with the objects of several layers: what is installed for C++ users, who then
# need not know the layers nor an order to link them in.
function(accelmm_add_archive name)
  cmake_parse_arguments(ARG "" "" "LAYERS" ${ARGN})
  list(TRANSFORM ARG_LAYERS REPLACE "(.+)" "$<TARGET_OBJECTS:accelmm_\\1>" OUTPUT_VARIABLE objects)
  add_library(accelmm_${name} STATIC ${objects})
  set_target_properties(accelmm_${name} PROPERTIES LINKER_LANGUAGE CXX EXPORT_NAME ${name})
  add_library(accelmm::${name} ALIAS accelmm_${name})
endfunction()

# accelmm_public_headers(TARGET header...): headers below include/accelmm that the target installs. Each is compiled
# alone by the target all_verify_interface_header_sets.
function(accelmm_public_headers target)
  list(TRANSFORM ARGN PREPEND ${PROJECT_SOURCE_DIR}/include/accelmm/ OUTPUT_VARIABLE headers)
  target_sources(${target} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${headers})
  set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()
