// SigLIP's loss in the frame of info_nce: no statistics, so one sweep gives the value and, when they are wanted, the gradients.

#include "core/src/ops/streamed_logits.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"

namespace twinlens {
namespace {

struct SigmoidLossNode final : Node {
  Saved du, dv, dscale, dbias;  // for an upstream gradient of 1

  const char* name() const override { return "sigmoid_loss"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    const Saved* of_input[] = {&du, &dv, &dscale, &dbias};
    for (int i = 0; i < 4; ++i) {
      if (!grads.wants(i)) continue;
      const Tensor& g = of_input[i]->get();
      grads.add(i, mul(g, dy.reshape({})).reshape(input_shapes[static_cast<std::size_t>(i)]));
    }
  }

  void release() override {
    for (Saved* saved : {&du, &dv, &dscale, &dbias}) saved->reset();
  }
};

}  // namespace

Tensor sigmoid_loss(const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const Tensor& logit_bias,
                    const InfoNceOptions& options) {
  check_streamed_loss("sigmoid_loss", rows, columns, logit_scale, options);
  check_same_device("sigmoid_loss", {{"rows", rows}, {"logit_bias", logit_bias}});
  check_dtype(logit_bias.dtype() == DType::f32, "sigmoid_loss", "the logit bias must be f32", {{"logit_bias", logit_bias}});
  check(logit_bias.count() == 1, "sigmoid_loss", "the logit bias must have one element", {{"logit_bias", logit_bias}});
  check(!options.teacher_rows.defined() && !options.ranks.merge_columns, "sigmoid_loss", "knows no teacher and needs no other ranks");
  const bool wanted = needs_grad({&rows, &columns, &logit_scale, &logit_bias});
  const bool wants_rows = needs_grad({&rows}), wants_columns = needs_grad({&columns});
  auto node = std::make_shared<SigmoidLossNode>();
  Tensor loss;
  {
    const NoGrad guard;
    const std::int64_t n = rows.size(0), d = rows.size(1);
    const Device device = rows.device();
    const Tensor u = dense_rows(rows.detach()), v = dense_rows(columns.detach()), bias = dense(logit_bias.detach());
    LogitTiles tiles(n, columns.size(0), device, options);
    tiles.logit_scale = dense(logit_scale.detach());
    Tensor du, dv;
    if (wants_rows) du = zeros({n, d}, DType::f32, device);
    if (wants_columns) dv = zeros({columns.size(0), d}, DType::f32, device);
    const float weight = n > 0 ? static_cast<float>(1.0 / static_cast<double>(n)) : 0.0F;
    Tensor sums = zeros({n, 6}, DType::f32, device);  // (n, 3) doubles
    const Tensor memory = tiles.memory(device);
    Stream& stream = current_stream(device);
    tiles.each([&](const LogitTile& tile) {
      const Rows cosines = tile.cosines(u, v, memory);
      run(stream, SigmoidLossTile{tiles.kernel_tile(tile, cosines), floats(bias), weight, doubles(sums)});
      tile.add_gradients(cosines, u, v, du, dv);
    });
    loss = empty({}, DType::f32, device);
    Tensor dbias = empty({}, DType::f32, device), dscale = empty({}, DType::f32, device);
    run(stream, SigmoidLossFinish{n, weight, doubles(sums), {floats(loss), floats(dbias), floats(dscale)}});
    if (du.defined()) node->du = Saved("du", du);
    if (dv.defined()) node->dv = Saved("dv", dv);
    node->dscale = Saved("dscale", dscale);
    node->dbias = Saved("dbias", dbias);
  }
  if (!wanted) return loss;
  return record(loss, std::move(node), {&rows, &columns, &logit_scale, &logit_bias});
}

}  // namespace twinlens
