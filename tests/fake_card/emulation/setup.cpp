// Before the first test: the card has its kernels, and the op cases leave the CPU, whose turn they have in test_ops, out.
#include <cstdlib>

#include "tests/fake_card/emulation/bodies.h"

namespace twinlens::test {
namespace {

[[maybe_unused]] const bool ready = [] {
  set_emulated_kernels();
  return setenv("TWINLENS_OP_CASES", "cuda", 1) == 0;
}();

}  // namespace
}  // namespace twinlens::test
