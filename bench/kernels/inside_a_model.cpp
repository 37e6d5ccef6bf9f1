#include "bench/kernels/rows.h"

#include "twinlens/core/autograd.h"

namespace twinlens::bench {
namespace {

struct WhereGradientsEnd final : Node {
  const char* name() const override { return "inside_a_model"; }
  void backward(const Tensor&, Gradients&) override {}
  void release() override {}
};

}  // namespace

Tensor inside_a_model(const Tensor& x) { return record(x.detach(), std::make_shared<WhereGradientsEnd>(), std::vector<Tensor>{}); }

}  // namespace twinlens::bench
