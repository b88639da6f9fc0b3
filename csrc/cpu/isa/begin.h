// What the kernels need before an instruction set is chosen: everything that is shared with the
// rest of the library must be compiled for the oldest processor, so it is included here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/isa/kernels.h"
#include "cpu/geometry/windows.h"
#include "cpu/geometry/winograd.h"

#define SSPCAB_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define SSPCAB_TARGET_BEGIN(features) \
  SSPCAB_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define SSPCAB_TARGET_END _Pragma("clang attribute pop")
#else
#define SSPCAB_TARGET_BEGIN(features) \
  _Pragma("GCC push_options") SSPCAB_PRAGMA(GCC target(features))
#define SSPCAB_TARGET_END _Pragma("GCC pop_options")
#endif
