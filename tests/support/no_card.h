#pragma once

#include <catch2/catch.hpp>

#include "twinlens/kernels/stream.h"

namespace twinlens::test {

// Whether a test for a card must be passed over here; says so.
inline bool no_card() {
  if (cuda_device_count() > 0) return false;
  WARN("skipped: " << cuda_unavailable_reason());
  return true;
}

}  // namespace twinlens::test
