// What the op cases do on a large card only, or in one piece.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <string>

#include "tests/fake_card/emulation/threads.h"
#include "tests/op_cases/all.h"

namespace twinlens::test {

TEST_CASE("attention whose keys do not fit shared memory goes through them in chunks", "[op]") {
  struct Small {
    emulated::Card before = emulated::card();
    Small() { emulated::card().shared_bytes = 48 * 1024; }
    ~Small() { emulated::card() = before; }
  } const small;
  OpCases op = op_cases_attention();
  const std::array<std::string, 2> names{"77 queries, 600 keys, causal", "two lengths, heads of 88"};
  std::erase_if(op.cases, [&](const OpCase& c) { return std::find(names.begin(), names.end(), c.name) == names.end(); });
  REQUIRE(op.cases.size() == names.size());
  run_op_cases(op);
}

}  // namespace twinlens::test
