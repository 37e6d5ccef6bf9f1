#pragma once

#include <catch2/catch.hpp>

#include "twinlens/kernels/isa.h"

namespace twinlens {

// Calls f() with every instruction set of this build and machine in turn, up to the active one, which is active again afterwards.
template <class F>
void on_every_set(F&& f) {
  Isa sets[5];
  const int count = available_isas(sets);
  const Isa best = active_isa();
  for (int s = 0; s < count; ++s) {
    if (sets[s] > best) continue;
    set_active_isa(sets[s]);
    INFO(name_of(sets[s]));
    f();
  }
  set_active_isa(best);
}

}  // namespace twinlens
