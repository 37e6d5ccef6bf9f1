// twinlens_bench: every kernel at named shapes of CLIP. Flags are Google Benchmark's.

#include <benchmark/benchmark.h>
#include <map>

#include "bench/kernels/rows.h"
#include "bench/measure/peak.h"

#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens::bench {

const Peaks& peaks() {
  static const Peaks measured{cpu_peak_gflops(false), cpu_peak_gflops(true)};
  return measured;
}

double copy_gigabytes(double bytes) {
  static std::map<double, double> measured;
  const auto [at, is_new] = measured.try_emplace(bytes, 0.0);
  if (is_new) at->second = cpu_copy_gigabytes(bytes);
  return at->second;
}

void add_row(const std::string& name, const Work& work, const std::function<void()>& call) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [work, call](benchmark::State& state) {
                                 std::size_t inputs = 0, peak = 0;
                                 try {
                                   call();  // makes the inputs
                                   inputs = memory_report(kCpu).bytes;
                                   reset_peak_memory(kCpu);
                                   for (auto _ : state) call();
                                   peak = memory_report(kCpu).peak_bytes;
                                 } catch (const std::exception& error) {
                                   state.SkipWithError(error.what());
                                   return;
                                 }
                                 const double flop_share = 1e-7 * work.flops / (work.bf16 ? peaks().bf16_gflops : peaks().fp32_gflops);
                                 const double byte_share = work.bytes > 0.0 ? 1e-7 * work.bytes / copy_gigabytes(work.bytes) : 0.0;
                                 const auto rate = benchmark::Counter::kIsIterationInvariantRate;
                                 state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * work.flops, rate);
                                 state.counters["GB/s"] = benchmark::Counter(1e-9 * work.bytes, rate);
                                 state.counters["%peak"] = benchmark::Counter(flop_share > byte_share ? flop_share : byte_share, rate);
                                 state.counters["extra_bytes"] = static_cast<double>(peak - inputs);
                               })
      ->UseRealTime()
      ->MeasureProcessCPUTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace twinlens::bench

int main(int argc, char** argv) {
  using namespace twinlens::bench;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("instruction_set", twinlens::name_of(twinlens::active_isa()));
  benchmark::AddCustomContext("threads", std::to_string(twinlens::thread_count()));
  benchmark::AddCustomContext("peak_fp32_gflops", std::to_string(peaks().fp32_gflops));
  benchmark::AddCustomContext("peak_bf16_gflops", std::to_string(peaks().bf16_gflops));
  add_op_case_rows();
  add_shape_rows();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
