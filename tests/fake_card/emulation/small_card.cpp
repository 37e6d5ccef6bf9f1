// What the op cases do on a large card only, in one piece, or in one way of several.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "tests/fake_card/emulation/threads.h"
#include "tests/kernels/cuda_measure.h"
#include "tests/op_cases/all.h"

#include "twinlens/kernels/attention.h"
#include "twinlens/kernels/pool2d.h"

namespace twinlens::test {
namespace {

struct SmallCard {
  emulated::Card before = emulated::card();
  SmallCard() { emulated::card().shared_bytes = 48 * 1024; }
  ~SmallCard() { emulated::card() = before; }
};

struct Attended {
  DType dtype = DType::bf16;
  std::vector<std::int64_t> queries, keys;  // offsets
  std::int64_t head_dim = 64;
  bool causal = false;
};

// y, lse, delta and the gradients, with so many tiles a warp.
std::vector<std::vector<std::byte>> attend(const Attended& x, int row_tiles) {
  Stream& stream = current_stream(kCard);
  const std::int64_t rows = x.queries.back(), key_rows = x.keys.back(), columns = x.head_dim;
  const auto memory_of = [&](const std::vector<std::int64_t>& offsets) {
    Memory m = allocate(stream, offsets.size() * sizeof(std::int64_t));
    copy_bytes(stream, m.data(), kCard, offsets.data(), kCpu, m.bytes());
    return m;
  };
  const auto longest = [](const std::vector<std::int64_t>& offsets) {
    std::int64_t most = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) most = std::max(most, offsets[s + 1] - offsets[s]);
    return most;
  };
  const Memory query_offsets = memory_of(x.queries), key_offsets = memory_of(x.keys);
  const Block q(rows * columns, x.dtype), dy(rows * columns, x.dtype), y(rows * columns, x.dtype), dq(rows * columns, x.dtype);
  const Block k(key_rows * columns, x.dtype), v(key_rows * columns, x.dtype), dk(key_rows * columns, x.dtype),
      dv(key_rows * columns, x.dtype);
  const Block lse(rows, DType::f32), delta(rows, DType::f32);
  AttentionProblem p{};
  p.q = q.read_rows(rows);
  p.k = k.read_rows(key_rows);
  p.v = v.read_rows(key_rows);
  p.query_offsets = static_cast<const std::int64_t*>(query_offsets.data());
  p.key_offsets = static_cast<const std::int64_t*>(key_offsets.data());
  p.sequences = static_cast<std::int64_t>(x.queries.size()) - 1;
  p.heads = 1;
  p.head_dim = columns;
  p.longest_query = longest(x.queries);
  p.longest_key = longest(x.keys);
  p.causal = x.causal;
  p.scale = 0.25F;
  p.scratch = delta.floats();
  p.slots = 1;
  p.row_tiles = row_tiles;
  run(stream, AttentionForward{p, y.rows(rows), lse.floats()});
  run(stream,
      AttentionBackward{p, y.read_rows(rows), dy.read_rows(rows), lse.floats(), dq.rows(rows), dk.rows(key_rows), dv.rows(key_rows)});
  std::vector<std::vector<std::byte>> out;
  for (const Block* block : {&y, &lse, &delta, &dq, &dk, &dv}) {
    out.emplace_back(static_cast<std::size_t>(block->count * size_of(block->dtype)));
    copy_bytes(stream, out.back().data(), kCpu, block->memory.data(), kCard, out.back().size());
  }
  synchronize(stream);
  return out;
}

}  // namespace

TEST_CASE("attention whose keys do not fit shared memory goes through them in chunks", "[op]") {
  const SmallCard small;
  OpCases op = op_cases_attention();
  const std::array<std::string, 3> names{"77 queries, 600 keys, causal", "two lengths, heads of 88", "577 tokens"};
  std::erase_if(op.cases, [&](const OpCase& c) { return std::find(names.begin(), names.end(), c.name) == names.end(); });
  REQUIRE(op.cases.size() == names.size());
  run_op_cases(op);
}

// A second tile of rows shares what the warp reads; what is added to what stays the same. 33 and 197 rows leave warps with one row more
// than whole tiles and with an empty second tile; causal tiles of a warp begin and end at keys of their own.
TEST_CASE("attention has the same bits with 16 and 32 rows a warp", "[op]") {
  const std::vector<std::int64_t> own{0, 33, 33, 230, 235, 312}, others{0, 20, 23, 280, 320, 397};
  std::vector<Attended> cases;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const bool causal : {false, true}) {
      cases.push_back({dtype, own, own, 64, causal});
      cases.push_back({dtype, own, others, 40, causal});
    }
  }
  cases.push_back({DType::bf16, others, own, 64, true});  // queries that see no key
  const auto check = [](const Attended& x) {
    INFO((x.dtype == DType::bf16 ? "bf16, " : "f16, ")
         << x.head_dim << " columns, " << (x.causal ? "causal, " : "") << x.keys.back() << " keys");
    const auto one = attend(x, 1), two = attend(x, 2);
    const std::array<const char*, 6> names{"y", "lse", "delta", "dq", "dk", "dv"};
    for (std::size_t i = 0; i < one.size(); ++i) {
      INFO(names[i]);
      CHECK((one[i] == two[i]));
    }
  };
  for (const Attended& x : cases) check(x);
  const SmallCard small;
  check({DType::bf16, own, others, 64, true});  // in chunks
  check({DType::f16, others, own, 64, false});
}

// Pixels of whole words, whose places of maxima begin between words: both kernels then go an element at a time. (What moves a word that
// does not begin on one ends the test.)
TEST_CASE("places of maxima may begin between words", "[op]") {
  Stream& stream = current_stream(kCard);
  const PoolWindows windows{2, 6, 4, 16, 3, 2, 2, 2, 0};
  const std::int64_t pixels = 2 * 6 * 4 * 16, results = pixels / 4;
  const Block x(pixels, DType::bf16), dx(pixels, DType::bf16), dy(results, DType::bf16);
  std::vector<std::vector<std::byte>> found;
  for (const std::int64_t first : {0, 1}) {
    const Block y(results, DType::bf16), where(results + 1, DType::f32);
    std::int32_t* const places = static_cast<std::int32_t*>(where.memory.data()) + first;
    run(stream, MaxPool2dForward{x.read(), y.memory.data(), places, windows});
    run(stream, MaxPool2dBackward{dy.read(), places, dx.memory.data(), windows});
    const auto take = [&](const void* from, std::int64_t bytes) {
      found.emplace_back(static_cast<std::size_t>(bytes));
      copy_bytes(stream, found.back().data(), kCpu, from, kCard, found.back().size());
    };
    take(y.memory.data(), 2 * results);
    take(places, 4 * results);
    take(dx.memory.data(), 2 * pixels);
  }
  synchronize(stream);
  for (std::size_t i = 0; i < 3; ++i) CHECK((found[i] == found[i + 3]));
}

}  // namespace twinlens::test
