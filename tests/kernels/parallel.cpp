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

}  // namespace
}  // namespace twinlens
