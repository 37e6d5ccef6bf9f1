#include "bench/measure/peak_loop.h"

#include <ctime>

#include "kernels/cpu/gemm/tile.h"
#include "kernels/cpu/vec/past_caches.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens::bench {
namespace {

// Enough chains to hide the latency of a multiply-add on two ports, few enough for the registers.
template <class I>
constexpr int kChains = I::kWidth == 16 ? 24 : 10;

// The calling thread's time on the processor: other programs do not count. (Of a whole process the system knows it only to a tick.)
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class I, gemm::Form F>
float multiply_adds(std::int64_t rounds) {
  using Raw = typename Vec<I>::Raw;
  Raw sum[kChains<I>], x = Vec<I>(0.5F).raw, y = Vec<I>(0.25F).raw;
  for (int i = 0; i < kChains<I>; ++i) sum[i] = Vec<I>(static_cast<float>(i)).raw;
  for (std::int64_t k = 0; k < rounds; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains<I>; ++i) {
      // In f32 the chain goes through a factor: a product of two constants would be taken out of the loop.
      sum[i] = F == gemm::Form::pairs ? gemm::multiply_add<I, F>(x, y, sum[i]) : sum[i] * x + y;
    }
  }
  Raw total = sum[0];
  for (int i = 1; i < kChains<I>; ++i) total += sum[i];
  return total[0];
}

#if defined(TWINLENS_TILE_REGISTERS)
constexpr double kTileFlops = 4.0 * 16 * 16 * 32 * 2;  // of a round

void multiply_tiles(std::int64_t rounds) {
  const gemm::TileRegisters<Avx512Amx, gemm::Form::pairs> registers;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (std::int64_t k = 0; k < rounds; ++k) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
}
#endif

// One thread's rounds; returns their flops.
template <class I>
double work(const PeakLoop& a, float* sum) {
  const auto rounds = static_cast<double>(a.rounds);
#if defined(TWINLENS_TILE_REGISTERS)
  if (a.bf16) {
    multiply_tiles(a.rounds);
    return rounds * kTileFlops;
  }
#endif
  if constexpr (I::kBf16Dot) {
    if (a.bf16) {
      *sum = multiply_adds<I, gemm::Form::pairs>(a.rounds);
      return rounds * kChains<I> * I::kWidth * 4.0;
    }
  }
  *sum = multiply_adds<I, gemm::Form::floats>(a.rounds);
  return rounds * kChains<I> * I::kWidth * 2.0;
}

}  // namespace

template <class I>
void kernel(I, const PeakLoop& a) {
  parallel_for(a.threads, 1, [&](std::int64_t thread, std::int64_t) {
    const double start = thread_seconds(), flops = work<I>(a, a.sums + thread);
    a.flop_rates[thread] = flops / (thread_seconds() - start);
  });
}
template void kernel(TWINLENS_ISA, const PeakLoop&);

template <class I>
void kernel(I, const CopyLoop& a) {
  parallel_for(a.count, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    const RowOutput out{a.past_caches};
    for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) { out.store<I>(load_lanes<I>(a.x + begin + i, n), a.y + begin + i, n); });
    out.end();
  });
}
template void kernel(TWINLENS_ISA, const CopyLoop&);

}  // namespace twinlens::bench
