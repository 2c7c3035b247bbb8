# cmake --install: the headers, the libraries, find_package(accelmm) and two pkg-config files.
include(CMakePackageConfigHelpers)

install(TARGETS accelmm accelmm_core accelmm_npu_model EXPORT accelmm FILE_SET HEADERS)
install(EXPORT accelmm NAMESPACE accelmm:: FILE accelmmTargets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/accelmm)

configure_package_config_file(cmake/accelmmConfig.cmake.in ${PROJECT_BINARY_DIR}/accelmmConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/accelmm)
# Before 1.0 a minor release may break source compatibility.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/accelmmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/accelmmConfig.cmake ${PROJECT_BINARY_DIR}/accelmmConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/accelmm)

# Relative to the .pc file, so that an installed tree can be moved.
file(RELATIVE_PATH ACCELMM_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(package IN ITEMS accelmm accelmm-core)
  configure_file(cmake/${package}.pc.in ${PROJECT_BINARY_DIR}/${package}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${package}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
