# Installs the library, its headers, and what find_package(attn) reads. meson.build installs the same, but for
# attn-targets.cmake, which CMake writes and meson fills in from cmake/attn-targets.cmake.in.
include(GNUInstallDirs)
set(attn_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attn)

set(version ${PROJECT_VERSION})
set(pointer_bytes ${CMAKE_SIZEOF_VOID_P})
set(static_sleef OFF)
if(attn_sleef AND attn_type STREQUAL "STATIC_LIBRARY")
  set(static_sleef ON)
endif()
set(attn_configs)
foreach(name attn-config.cmake attn-config-version.cmake)
  configure_file(cmake/${name}.in ${name} @ONLY)
  list(APPEND attn_configs ${PROJECT_BINARY_DIR}/${name})
endforeach()

install(TARGETS attn EXPORT attn RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/attn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(EXPORT attn NAMESPACE attn:: FILE attn-targets.cmake DESTINATION ${attn_config_dir})
install(FILES ${attn_configs} cmake/attn-sleef.cmake DESTINATION ${attn_config_dir})
