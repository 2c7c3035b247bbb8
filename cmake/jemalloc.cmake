# jemalloc, linked beside the C library's malloc instead of replacing it. -ljemalloc would define malloc for the whole
# program, and its shared object cannot be loaded later, since it wants static TLS. Its position-independent archive with
# all symbols renamed does neither (docs/adr/0012-jemalloc-by-renamed-archive.md). Also used by bench/, which is built
# against the installed package.
find_library(ACCELMM_JEMALLOC_ARCHIVE libjemalloc_pic.a REQUIRED)
set(ACCELMM_JEMALLOC_SCRIPTS ${CMAKE_CURRENT_LIST_DIR})

# accelmm_renamed_jemalloc(OUTPUT PREFIX): an archive of jemalloc in which all names begin with the prefix.
function(accelmm_renamed_jemalloc output prefix)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DOBJCOPY=${CMAKE_OBJCOPY} -DARCHIVE=${ACCELMM_JEMALLOC_ARCHIVE}
            -DPREFIX=${prefix} -DOUTPUT=${output} -P ${ACCELMM_JEMALLOC_SCRIPTS}/rename_symbols.cmake
    DEPENDS ${ACCELMM_JEMALLOC_ARCHIVE} ${ACCELMM_JEMALLOC_SCRIPTS}/rename_symbols.cmake
    VERBATIM)
endfunction()

# accelmm_jemalloc_object(OUTPUT PREFIX symbol...): all of it as one object, of which others see only the symbols named.
# An object, so that it can be a member of our own archive: what is installed then needs nothing beside it.
function(accelmm_jemalloc_object output prefix)
  set(archive ${output}.renamed.a)
  accelmm_renamed_jemalloc(${archive} ${prefix})
  list(TRANSFORM ARGN PREPEND --keep-global-symbol=${prefix} OUTPUT_VARIABLE keep)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_LINKER} -r --whole-archive ${archive} -o ${output}.all.o
    COMMAND ${CMAKE_OBJCOPY} --strip-debug ${keep} ${output}.all.o ${output}
    DEPENDS ${archive}
    VERBATIM)
endfunction()

# accelmm_add_object(TARGET OBJECT MAKER): the object, which the target MAKER makes, becomes a member of a static library.
function(accelmm_add_object target object maker)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  target_sources(${target} PRIVATE ${object})
  add_dependencies(${target} ${maker})
endfunction()
