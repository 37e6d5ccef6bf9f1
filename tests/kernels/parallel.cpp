#include "twinlens/kernels/parallel.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <vector>

namespace twinlens {
namespace {

TEST_CASE("parallel_for covers every element once, whatever the grain") {
  for (const std::int64_t n : {0, 1, 7, 100}) {
    for (const std::int64_t grain : {-5, 0, 1, 3, 100, 1000}) {
      INFO("n " << n << ", grain " << grain);
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
      std::atomic<std::int64_t> longest{0};
      parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        std::int64_t before = longest;
        while (before < end - begin && !longest.compare_exchange_weak(before, end - begin)) {
        }
      });
      for (const std::atomic<int>& times : seen) CHECK(times == 1);
      CHECK(longest <= (grain < 1 ? 1 : grain));
    }
  }
}

TEST_CASE("runs hand out every item once, and each thread that takes turns neighbours") {
  for (std::int64_t n = 0; n < 20; ++n) {
    for (std::int64_t slots = 1; slots < 8; ++slots) {
      INFO("n " << n << ", slots " << slots);
      const Runs runs{n, slots};
      std::vector<int> seen(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n; ++i) {
        REQUIRE((runs.at(i) >= 0 && runs.at(i) < n));
        ++seen[static_cast<std::size_t>(runs.at(i))];
        CHECK(runs.at(i + slots) == (i + slots < n ? runs.at(i) + 1 : n));
      }
      for (const int times : seen) CHECK(times == 1);
    }
  }
}

}  // namespace
}  // namespace twinlens
