// Where the memory goes, how to need less of it, and why the number of threads is never a reason for other results.

#include <cstdio>
#include <twinlens/core/autograd.h>
#include <twinlens/core/random.h>
#include <twinlens/kernels/memory.h>
#include <twinlens/kernels/parallel.h>
#include <twinlens/kernels/scope.h>
#include <twinlens/nn/flat_parameters.h>
#include <twinlens/nn/init.h>
#include <twinlens/nn/transformer.h>

using namespace twinlens;

namespace {

constexpr std::int64_t kWidth = 64, kSequences = 4, kTokens = 50;

// Eight blocks over four sequences of fifty tokens; names of parameters and seed make the weights.
struct Net {
  Transformer transformer{kWidth, 8, 4, 4 * kWidth, Activation::gelu};
  Net() {
    const Initializer init{0};
    for (const NamedParameter& p : collect(transformer).parameters) {
      if (p.parameter->value.rank() == 2) init.normal(*p.parameter, p.name, 0.05);
    }
  }
  void visit(Visitor& v) { v("transformer", transformer); }
};

struct Run {
  std::vector<float> gradients;
  MemoryReport memory;
};

// Forward and backward.
Run run(bool recompute, int threads) {
  set_thread_count(threads);
  Net net;
  FlatParameters flat(collect(net), false);
  Tensor x = empty({kSequences * kTokens, kWidth});  // rows of all sequences, back to back
  normal_(x, 0.0, 1.0, 0, site_of("x"));
  Context context;
  context.checkpoint_blocks = recompute;  // keep only the rows between blocks; checkpoint() does the same for any function
  reset_peak_memory(kCpu);
  {
    const Scope scope("encode");  // what is allocated from here on carries this name; the Transformer adds resblocks.0, resblocks.1, ...
    const Tensor y = net.transformer(x, equal_offsets(kSequences, kTokens), false, {}, context);
    backward(mean(square(y)));
  }
  return {flat.gradients.to_vector(), memory_report(kCpu)};
}

}  // namespace

int main() {
  const Run plain = run(false, 1), two_threads = run(false, 2), frugal = run(true, 1);

  std::printf("alive at the peak, the five largest names:\n");
  for (std::size_t i = 0; i < 5 && i < plain.memory.tags.size(); ++i) {
    const MemoryTag& tag = plain.memory.tags[i];
    std::printf("  %6.0f KiB  %s\n", static_cast<double>(tag.bytes_at_peak) / 1024, tag.name.empty() ? "(no scope)" : tag.name.c_str());
  }
  const auto mebibytes = [](const Run& r) { return static_cast<double>(r.memory.peak_bytes) / (1 << 20); };
  std::printf("peak %.1f MiB, with blocks recomputed in backward %.1f MiB\n", mebibytes(plain), mebibytes(frugal));

  // Every sum has a fixed order that does not depend on who computes it: not "close", equal.
  const bool same_for_threads = plain.gradients == two_threads.gradients, same_for_memory = plain.gradients == frugal.gradients;
  std::printf("gradients equal to the bit: 1 and 2 threads %s, kept and recomputed %s\n", same_for_threads ? "yes" : "no",
              same_for_memory ? "yes" : "no");
  return same_for_threads && same_for_memory && frugal.memory.peak_bytes < plain.memory.peak_bytes * 2 / 3 ? 0 : 1;
}
