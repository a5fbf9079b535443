# The target attn::sleef, where SLEEF is installed. Also read by those who link an installed libattn.a.
if(NOT TARGET attn::sleef)
  find_path(ATTN_SLEEF_INCLUDE sleef.h)
  find_library(ATTN_SLEEF_LIBRARY sleef)
  mark_as_advanced(ATTN_SLEEF_INCLUDE ATTN_SLEEF_LIBRARY)
  if(ATTN_SLEEF_INCLUDE AND ATTN_SLEEF_LIBRARY)
    add_library(attn::sleef UNKNOWN IMPORTED GLOBAL)
    set_target_properties(attn::sleef PROPERTIES IMPORTED_LOCATION "${ATTN_SLEEF_LIBRARY}"
                          INTERFACE_INCLUDE_DIRECTORIES "${ATTN_SLEEF_INCLUDE}")
  endif()
endif()
