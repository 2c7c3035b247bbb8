# accelmm_add_layer(NAME DEPENDS layer... [LIBRARIES lib...])
#
# One static library per layer, accelmm_<name>, from all sources of the current folder and, for mm, its sub-folders.
# A layer links only the layers it may include (docs/architecture.md), so an upward call does not link.
function(accelmm_add_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES;FOLDERS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(folder IN LISTS ARG_FOLDERS)
    file(GLOB more CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
    list(APPEND sources ${more})
  endforeach()
  add_library(accelmm_${name} STATIC ${sources})
  set_target_properties(accelmm_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(accelmm_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> PRIVATE ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPENDS PREPEND accelmm_)
  target_link_libraries(accelmm_${name} PUBLIC ${ARG_DEPENDS} ${ARG_LIBRARIES}
                        PRIVATE $<BUILD_INTERFACE:accelmm_warnings>)
  set_property(GLOBAL APPEND PROPERTY ACCELMM_LAYERS accelmm_${name})
endfunction()
