// The index arithmetic of CUDA launches, on any machine: every element and row is covered exactly once and no limit of the hardware is
// passed.
#include <algorithm>
#include <catch2/catch.hpp>
#include <initializer_list>

#include "kernels/cpu/copy_plan.h"
#include "kernels/cpu/strided_plan.h"
#include "kernels/cuda/architectures.h"
#include "kernels/cuda/copy_words.h"
#include "kernels/cuda/geometry.h"

#include "twinlens/kernels/index_select.h"

namespace twinlens::cuda {

TEST_CASE("a build serves the cards that its entries have code for", "[cuda]") {
  struct Case {
    const char* entries;
    std::initializer_list<int> served, refused;
  };
  const Case cases[] = {{"80,90", {80, 86, 89, 90, 100, 120}, {70, 75}},
                        {"90-real", {90}, {80, 89, 100, 120}},
                        {"80-real,90-real", {80, 86, 90}, {75, 100}},
                        {"80-virtual", {80, 89, 90, 100}, {75}},
                        {"90a", {90}, {80, 89, 100}},
                        {"100f", {100, 103}, {90, 120}},
                        {"80-real,100", {86, 100, 120}, {90}}};
  for (const Case& c : cases) {
    INFO(c.entries);
    for (const int card : c.served) CHECK(built_for(c.entries, card));
    for (const int card : c.refused) CHECK_FALSE(built_for(c.entries, card));
  }
  CHECK_FALSE(built_for("", 90));
  CHECK(no_code_for("80,90", 75).find("7.5, twinlens needs 8.0") != std::string::npos);
  CHECK(no_code_for("90-real", 120).find("12.0, built for 90-real; device cuda; configure with -DTWINLENS_CUDA_ARCHITECTURES=120") !=
        std::string::npos);
}

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

TEST_CASE("a copy moves words that its runs consist of and start on", "[cuda]") {
  alignas(16) static char memory[64];
  const auto plan = [](std::int64_t rows, std::int64_t run, std::int64_t sx, std::int64_t sy) {
    CopyPlan p;
    p.rank = 2;
    p.shape[0] = rows, p.shape[1] = run;
    p.sx[0] = sx, p.sy[0] = sy;
    p.sx[1] = p.sy[1] = 1;
    return p;
  };
  const CopyWords token = copy_words(plan(32, 768, 0, 50 * 768), memory, memory + 16, 2);  // one row before those of every picture
  CHECK(token.bytes == 16);
  CHECK(token.elements == 8);
  CHECK(token.plan.shape[0] == 32);
  CHECK(token.plan.shape[1] == 96);
  CHECK(token.plan.sx[0] == 0);
  CHECK(token.plan.sy[0] == 50 * 96);
  CHECK(token.plan.sx[1] == 1);
  CHECK(token.plan.sy[1] == 1);
  CHECK(copy_words(plan(3, 8, 12, 8), memory, memory, 2).bytes == 8);       // rows of x that start on 8 bytes
  CHECK(copy_words(plan(3, 8, 8, 12), memory, memory, 2).bytes == 8);       // rows of y
  CHECK(copy_words(plan(3, 12, 16, 16), memory, memory, 2).bytes == 8);     // runs of 24 bytes
  CHECK(copy_words(plan(3, 8, 16, 16), memory + 4, memory, 2).bytes == 4);  // addresses
  CHECK(copy_words(plan(3, 8, 16, 16), memory, memory + 2, 2).bytes == 2);
  CHECK(copy_words(plan(3, 16, 32, -32), memory, memory, 1).bytes == 16);
  CHECK(copy_words(plan(3, 7, 8, 8), memory, memory, 8).bytes == 8);  // an odd run
  CopyPlan transposed = plan(8, 8, 1, 8);
  transposed.sx[1] = 8;
  const CopyWords single = copy_words(transposed, memory, memory, 2);
  CHECK(single.bytes == 2);
  CHECK(single.plan.shape[1] == 8);
  CHECK(single.plan.sx[1] == 8);
}

TEST_CASE("a row without elements has a result where one is asked for", "[cuda]") {
  CHECK(row_result_launch(5, 0).blocks == 2);
  CHECK(row_result_launch(0, 0).blocks == 0);
  CHECK(row_result_launch(5, 4096).threads_per_row == 256);
}

TEST_CASE("words that two runs of bytes can be moved in", "[cuda]") {
  alignas(16) static char memory[64];
  CHECK(common_word(memory, memory + 16, 1024) == 16);
  CHECK(common_word(memory, memory + 16, 24) == 8);
  CHECK(common_word(memory, memory + 4, 1024) == 4);
  CHECK(common_word(memory, memory, 14) == 2);
  CHECK(common_word(memory + 1, memory, 1024) == 1);
  CHECK(common_word(memory, memory, 7) == 1);
  CHECK(is_aligned(memory));
  CHECK_FALSE(is_aligned(memory + 8));
  CHECK(is_aligned(nullptr));
  CHECK(pack_of(DType::f32) == 4);
  CHECK(pack_of(DType::bf16) == 8);
}

TEST_CASE("optimizer blocks cover the flat parameters", "[cuda]") {
  CHECK(optimizer_blocks(0) == 0);
  CHECK(optimizer_blocks(1) == 1);
  CHECK(optimizer_blocks(kOptimizerChunk) == 1);
  CHECK(optimizer_blocks(kOptimizerChunk + 1) == 2);
  CHECK(optimizer_blocks(std::int64_t{1} << 33) == (1U << 20));
}

TEST_CASE("column sums never need more parts than there is scratch memory for", "[cuda]") {
  for (const std::int64_t rows : {1, 31, 32, 33, 32'768, 32'769, 100'000, 400'000, 3'000'000}) {
    const std::int64_t of_block = rows_of_sum_block(rows, 32);
    CHECK(of_block % 32 == 0);
    CHECK(ceil_div(rows, of_block) <= ceil_div(rows, 32));
    CHECK((of_block == 32) == (rows <= 32'768));
    CHECK(of_block <= 256);
  }
  CHECK(rows_of_sum_block(0, 32) == 32);
}

namespace {

ConstStrided operand(const void* data, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides) {
  ConstStrided x;
  x.data = data;
  x.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), x.shape);
  std::copy(strides.begin(), strides.end(), x.strides);
  return x;
}

bool moves(const ConstStrided& a, const ConstStrided& b, int pack) {
  return moves_in_packs(plan_strided<2>({&a, &b}), pack, 4, {a.data, b.data});
}

}  // namespace

TEST_CASE("broadcast operands are moved in packs only where every pack is a word of each", "[cuda]") {
  alignas(16) static char memory[64];
  const ConstStrided dense = operand(memory, {6, 8}, {8, 1});
  CHECK(moves(dense, dense, 4));
  CHECK(moves(dense, operand(memory, {6, 8}, {0, 1}), 4));            // a row vector
  CHECK(moves(dense, operand(memory, {6, 8}, {1, 0}), 4));            // a column vector: each element for a run of 8, from any address
  CHECK(moves(dense, operand(memory + 4, {6, 8}, {0, 0}), 4));        // one number
  CHECK(moves(operand(memory, {6, 8}, {12, 1}), dense, 4));           // gaps between rows, of whole words
  CHECK_FALSE(moves(operand(memory, {6, 8}, {13, 1}), dense, 4));     // rows that start between words
  CHECK_FALSE(moves(operand(memory + 4, {6, 8}, {8, 1}), dense, 4));  // an address between words
  CHECK_FALSE(moves(operand(memory, {6, 8}, {1, 6}), dense, 4));      // transposed
  const ConstStrided odd = operand(memory, {3, 7}, {7, 1});
  CHECK_FALSE(moves(odd, odd, 4));  // 21 elements
  const ConstStrided scalar = operand(memory, {}, {});
  CHECK_FALSE(moves(scalar, scalar, 4));
}

TEST_CASE("the scatter's parts of scratch memory lie apart and on words", "[cuda]") {
  CHECK(scatter_plan(1, 49408, ScatterPlan::kFew, 512).words == 0);
  for (const std::int64_t outer : {1, 3}) {
    for (const std::int64_t count : {65, 4096, 4097, 100'001}) {
      for (const std::int64_t size : {1, 255, 256, 49'408, 70'000}) {
        const ScatterPlan p = scatter_plan(outer, size, count, 7);
        CHECK(p.ids[0] == 0);
        CHECK(p.ids[1] >= p.ids[0] + count);
        CHECK(p.places[0] >= p.ids[1] + count);
        CHECK(p.places[1] >= p.places[0] + count);
        CHECK(p.counts >= p.places[1] + count);
        CHECK(p.sums >= p.counts + 256 * p.tiles);
        CHECK(p.sums % 4 == 0);
        CHECK(p.words == p.sums + 2 * outer * p.pieces * 7);
        CHECK(p.tiles * ScatterPlan::kTile >= count);
        CHECK((p.pieces - 1) * ScatterPlan::kPiece < count);
        // `size` itself is sorted, too
        CHECK(size >> (8 * p.passes) == 0);
        CHECK(size >> (8 * (p.passes - 1)) != 0);
      }
    }
  }
}

}  // namespace twinlens::cuda
