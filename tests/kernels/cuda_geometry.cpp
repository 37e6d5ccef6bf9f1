// The index arithmetic of CUDA launches, on any machine: every element and row is covered exactly once and no limit of the hardware is
// passed.
#include <catch2/catch.hpp>

#include "kernels/cpu/copy_plan.h"
#include "kernels/cuda/geometry.h"

namespace twinlens::cuda {

TEST_CASE("element launches cover every element and end in the last block", "[cuda]") {
  for (const int per_thread : {1, 4, 8}) {
    const std::int64_t of_block = std::int64_t{per_thread} * ElementLaunch::kThreads;
    for (const std::int64_t count : {std::int64_t{1}, of_block - 1, of_block, of_block + 1, std::int64_t{1} << 33}) {
      const ElementLaunch launch = element_launch(count, per_thread);
      CHECK(launch.blocks * of_block >= count);
      CHECK((launch.blocks - 1) * of_block < count);
      CHECK(launch.blocks <= kMaxBlocks);
    }
    CHECK(element_launch(0, per_thread).blocks == 0);
  }
}

TEST_CASE("row launches cover every row with whole groups", "[cuda]") {
  for (const std::int64_t rows : {1, 3, 4, 5, 1600, 204800}) {
    for (const std::int64_t cols : {1, 31, 768, 2048, 2049, 16384}) {
      const RowLaunch launch = row_launch(rows, cols);
      CHECK(std::int64_t{launch.blocks} * launch.rows_per_block >= rows);
      CHECK((std::int64_t{launch.blocks} - 1) * launch.rows_per_block < rows);
      CHECK(launch.threads_per_row % kWarp == 0);
      CHECK(launch.threads_per_row * launch.rows_per_block <= 256);
      // groups larger than a warp synchronise as a block, so they must be alone in it
      CHECK((launch.threads_per_row == kWarp || launch.rows_per_block == 1));
    }
  }
  CHECK(row_launch(0, 8).blocks == 0);
  CHECK(row_launch(8, 0).blocks == 0);
}

TEST_CASE("row block launches cut rows the same way for every width", "[cuda]") {
  for (const std::int64_t rows : {1, 31, 32, 33, 204800}) {
    const std::int64_t blocks = (rows + 31) / 32;
    for (const std::int64_t cols : {1, 768, 4096}) {
      const RowLaunch launch = row_block_launch(rows, cols, 32);
      CHECK(launch.blocks == blocks);
      CHECK(launch.threads_per_row * launch.rows_per_block == 256);
    }
  }
  CHECK(row_block_launch(0, 8, 32).blocks == 0);
}

TEST_CASE("packs are words only where every row starts on one", "[cuda]") {
  alignas(16) static char memory[32];
  CHECK(packs_are_aligned(memory, 768, 4, 4));
  CHECK(packs_are_aligned(memory, 768, 2, 8));
  CHECK_FALSE(packs_are_aligned(memory + 4, 768, 4, 4));
  CHECK_FALSE(packs_are_aligned(memory, 65, 4, 4));
  CHECK_FALSE(packs_are_aligned(memory, 68, 2, 8));  // 136 bytes a row
  CHECK(packs_are_aligned(memory + 8, 4, 2, 4));     // a pack of 8 bytes needs 8
  CHECK(packs_are_aligned(memory, 8, 4, 8));         // a pack of 32 bytes is two words
  CHECK(packs_are_aligned(nullptr, 0, 4, 4));        // absent
}

TEST_CASE("a copy's plan merges what is dense on both sides", "[cuda]") {
  Copy copy;
  copy.x.rank = copy.y.rank = 3;
  const auto set = [](auto& side, std::int64_t a, std::int64_t b, std::int64_t c) {
    side.shape[0] = 2, side.shape[1] = 3, side.shape[2] = 4;
    side.strides[0] = a, side.strides[1] = b, side.strides[2] = c;
  };
  set(copy.x, 12, 4, 1);
  set(copy.y, 12, 4, 1);
  CHECK(is_dense(copy_plan(copy)));
  set(copy.x, 12, 1, 3);  // the last two transposed
  const CopyPlan transposed = copy_plan(copy);
  CHECK(transposed.rank == 3);
  CHECK_FALSE(is_dense(transposed));
  set(copy.x, 0, 4, 1);  // broadcast over the first
  const CopyPlan broadcast = copy_plan(copy);
  CHECK(broadcast.rank == 2);
  CHECK(broadcast.shape[1] == 12);
  CHECK(broadcast.sx[0] == 0);
}

}  // namespace twinlens::cuda
