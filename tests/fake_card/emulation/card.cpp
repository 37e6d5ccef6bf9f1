// What the emulated card refuses, as a card does or should.

#include <catch2/catch.hpp>
#include <vector>

#include "tests/fake_card/emulation/threads.h"

#include "twinlens/kernels/error.h"

namespace twinlens::emulated {

TEST_CASE("lanes exchange what they have, and wait for each other", "[cuda]") {
  std::vector<int> got(64);
  Launch(1, 64, 0, nullptr).run([&] {
    const int own = static_cast<int>(thread_index.x);
    const int other = from_lane(~0U, own, lane() ^ 1);
    wait_for_block();
    got[thread_index.x] = other;
  });
  for (int i = 0; i < 64; ++i) CHECK(got[static_cast<std::size_t>(i)] == (i ^ 1));
}

TEST_CASE("a lane that never comes is an error, and the next launch runs", "[cuda]") {
  const auto half = [] {
    if (lane() < 16) from_lane(~0U, 1, 0);
  };
  CHECK_THROWS_WITH(Launch(2, 32, 0, nullptr).run(half), Catch::Contains("waits for lanes of its warp that do not come; block "));
  int count = 0;
  Launch(3, 40, 0, nullptr).run([&] { ++count; });
  CHECK(count == 120);
}

TEST_CASE("launches that no card takes are refused", "[cuda]") {
  const auto nothing = [] {};
  CHECK_THROWS_AS(Launch(1, 1025, 0, nullptr).run(nothing), DeviceError);
  CHECK_THROWS_AS(Launch(0, 32, 0, nullptr).run(nothing), DeviceError);
  CHECK_THROWS_AS(Launch(Index3(1, 65536), 32, 0, nullptr).run(nothing), DeviceError);
  CHECK_THROWS_AS(Launch(1, 32, 228 * 1024, nullptr).run(nothing), DeviceError);
}

}  // namespace twinlens::emulated
