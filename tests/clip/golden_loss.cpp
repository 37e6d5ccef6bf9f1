// The symmetric InfoNCE against PyTorch in float64, with gradients; equal captions as positives against a reference in double.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/support/golden.h"

#include "twinlens/clip/loss.h"
#include "twinlens/clip/model.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

const Golden& golden() {
  static const Golden file("loss");
  return file;
}

struct Inputs {
  Tensor image, text, log_scale, caption_ids;
};

Inputs inputs_of(const std::string& rows, const std::string& scale_of) {
  Inputs in{golden().tensor(rows + ".in.image"), golden().tensor(rows + ".in.text"), golden().tensor(scale_of + ".in.log_scale"),
            golden().tensor(rows + ".in.caption_ids")};
  for (Tensor* x : {&in.image, &in.text, &in.log_scale}) x->set_requires_grad(true);
  return in;
}

Tensor loss_of(const Inputs& in, EqualCaptions equal) {
  return clip_loss({in.image, in.text, in.log_scale, in.caption_ids}, equal, *solo_communicator());
}

// The target of a row is uniform over all columns with its caption id, in both directions.
Tensor uniform_targets_loss(const Inputs& in) {
  const std::int64_t n = in.image.size(0);
  const Tensor same = equal(in.caption_ids.reshape({n, 1}), in.caption_ids.reshape({1, n})).to(DType::f32);
  const Tensor targets = div(same, sum(same, {{1}, true}));
  const Tensor logits = mul(matmul(in.image, in.text, {.transpose_b = true}), exp(in.log_scale));
  return affine(add(soft_cross_entropy(logits, targets), soft_cross_entropy(dense(logits.transpose(0, 1)), targets)), 0.5, 0.0);
}

// A loss or gradient may be far smaller than the rounding of the logits, so the scale stands in the bound too.
void check_close(const Tensor& got, const std::string& name, const std::string& kind, double scale) {
  INFO(kind);
  const std::vector<float> values = got.to_vector();
  const Golden::Distance d = golden().distance(values, name + "." + kind, name + ".err." + kind);
  double norm = 0.0;
  for (const double t : golden().truth(name + "." + kind)) norm += t * t;
  CHECK(d.distance <= 2.0 * std::max(golden().number(name + ".err." + kind), 0x1p-24 * std::max(std::sqrt(norm), scale)));
}

TEST_CASE("InfoNCE and its gradients follow float64 PyTorch", "[golden]") {
  const nlohmann::json cases = golden_json("loss");
  for (const auto& [name, about] : cases.items()) {
    INFO("case " << name);
    const bool diagonal = about["positives"] == "diagonal";
    const Inputs in = inputs_of(name.substr(0, name.find('.')), name);
    const Tensor loss = diagonal ? loss_of(in, EqualCaptions::negatives) : uniform_targets_loss(in);
    const double scale = about["scale"].get<double>();
    check_close(loss, name, "out.loss", scale);
    backward(loss);
    check_close(in.image.grad(), name, "grad_in.image", scale);
    check_close(in.text.grad(), name, "grad_in.text", scale);
    check_close(in.log_scale.grad(), name, "grad_in.log_scale", scale);
  }
}

// The sigmoid loss and the loss against a teacher, in tiles, and the first with all logits in memory too.
TEST_CASE("SigLIP's loss and distillation follow float64 open_clip", "[golden]") {
  const Golden file("loss_siglip");
  const nlohmann::json cases = golden_json("loss_siglip");
  for (const auto& [name, about] : cases.items()) {
    for (const bool stream : {true, false}) {
      INFO("case " << name << (stream ? ", in tiles" : ", all logits"));
      const std::string prefix = name + ".in.";
      const bool siglip = about["kind"] == "siglip";
      if (!siglip && !stream) continue;
      std::vector<std::pair<std::string, Tensor>> in;
      for (const char* input : {"image", "text", "log_scale", "log_bias"}) {
        if (!siglip && std::string(input) == "log_bias") continue;
        in.emplace_back(input, file.tensor(prefix + input));
        in.back().second.set_requires_grad(true);
      }
      Tensor loss;
      if (siglip) {
        loss = clip_loss({in[0].second, in[1].second, in[2].second, {}, in[3].second},
                         {EqualCaptions::negatives, LossKind::sigmoid, stream}, *solo_communicator());
      } else {
        InfoNceOptions o;
        o.teacher_rows = file.tensor(prefix + "teacher_image");
        o.teacher_columns = file.tensor(prefix + "teacher_text");
        o.teacher_logit_scale = scalar(static_cast<float>(std::log(about["teacher_scale"].get<double>())));
        loss = info_nce(in[0].second, in[1].second, in[2].second, o);
      }
      backward(loss);
      const double scale = about["scale"].get<double>();
      const auto check_tensor = [&, name = name](const Tensor& got, const std::string& kind) {  // (clang 14 captures no bindings)
        INFO(kind);
        const Golden::Distance d = file.distance(got.to_vector(), name + "." + kind, name + ".err." + kind);
        double norm = 0.0;
        for (const double v : file.truth(name + "." + kind)) norm += v * v;
        CHECK(d.distance <= 2.0 * std::max(file.number(name + ".err." + kind), 0x1p-24 * std::max(std::sqrt(norm), scale)));
      };
      check_tensor(loss, "out.loss");
      for (const auto& [input, tensor] : in) {
        // With all logits in memory the scale's gradient is one f32 sum of terms of both signs, and has that sum's rounding.
        if (stream || input != "log_scale") check_tensor(tensor.grad(), "grad_in." + input);
      }
    }
  }
}

struct Doubles {
  std::vector<double> image, text;  // (n, d)
  double log_scale = 0.0;
  std::vector<std::int64_t> caption_ids;
};

// Mean of both directions of -(l_ii - log sum_j exp l_ij), where j runs over i itself and the columns with another caption.
double positives_loss(const Doubles& x) {
  const std::size_t n = x.caption_ids.size(), d = x.image.size() / n;
  const auto one_direction = [&](const std::vector<double>& own, const std::vector<double>& others) {
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      double denominator = 0.0, pair = 0.0;
      for (std::size_t j = 0; j < n; ++j) {
        if (j != i && x.caption_ids[i] == x.caption_ids[j]) continue;
        double dot = 0.0;
        for (std::size_t k = 0; k < d; ++k) dot += own[i * d + k] * others[j * d + k];
        const double logit = std::exp(x.log_scale) * dot;
        denominator += std::exp(logit);
        if (j == i) pair = logit;
      }
      total += std::log(denominator) - pair;
    }
    return total / static_cast<double>(n);
  };
  return 0.5 * (one_direction(x.image, x.text) + one_direction(x.text, x.image));
}

double central_difference(const Doubles& x, double& element) {
  constexpr double kStep = 1e-5;
  const double kept = element;
  element = kept + kStep;
  const double above = positives_loss(x);
  element = kept - kStep;
  const double below = positives_loss(x);
  element = kept;
  return (above - below) / (2.0 * kStep);
}

TEST_CASE("equal captions as positives: value and gradients by central differences in double") {
  for (const char* rows : {"n2", "n5", "n33"}) {
    for (const char* scale : {"scale1", "scale14"}) {
      INFO(rows << " " << scale);
      const Inputs in = inputs_of(rows, std::string(rows) + "." + scale + ".diagonal");
      const auto doubles = [](const Tensor& t) {
        const std::vector<float> v = t.to_vector();
        return std::vector<double>(v.begin(), v.end());
      };
      Doubles x{doubles(in.image), doubles(in.text), doubles(in.log_scale)[0], in.caption_ids.to_ints()};
      const Tensor loss = loss_of(in, EqualCaptions::positives);
      CHECK(static_cast<double>(loss.item()) == Approx(positives_loss(x)).epsilon(1e-6).margin(1e-6));
      backward(loss);
      const double size = std::exp(x.log_scale);
      for (const auto& [values, gradient] : {std::pair{&x.image, in.image.grad()}, std::pair{&x.text, in.text.grad()}}) {
        const std::vector<float> got = gradient.to_vector();
        for (std::size_t i = 0; i < got.size(); ++i) {
          CHECK(static_cast<double>(got[i]) == Approx(central_difference(x, (*values)[i])).epsilon(1e-4).margin(1e-7 * size));
        }
      }
      CHECK(static_cast<double>(in.log_scale.grad().item()) ==
            Approx(central_difference(x, x.log_scale)).epsilon(1e-4).margin(1e-7 * size));
    }
  }
}

TEST_CASE("label smoothing: the term without logits is the soft cross-entropy to smoothed targets") {
  for (const char* rows : {"n1", "n2", "n33"}) {
    INFO(rows);
    const double share = 0.3;
    const std::string scale_of = std::string(rows) + ".scale14.diagonal";
    const Inputs plain = inputs_of(rows, scale_of), in = inputs_of(rows, scale_of);
    const std::int64_t n = in.image.size(0);
    const Tensor logits = mul(matmul(plain.image, plain.text, {.transpose_b = true}), exp(plain.log_scale));
    const Tensor own = equal(arange(n).reshape({n, 1}), arange(n).reshape({1, n})).to(DType::f32);
    const Tensor targets = affine(own, 1.0 - share, share / static_cast<double>(n));
    const Tensor want =
        affine(add(soft_cross_entropy(logits, targets), soft_cross_entropy(dense(logits.transpose(0, 1)), targets)), 0.5, 0.0);
    const auto communicator = solo_communicator();
    const ClipLossInputs of{in.image, in.text, in.log_scale, in.caption_ids};
    const Tensor got =
        add(clip_loss(of, EqualCaptions::negatives, *communicator), affine(label_smoothing_term(of, *communicator), share, 0.0));
    CHECK(got.item() == Approx(want.item()).epsilon(1e-6).margin(1e-6));
    backward(want);
    backward(got);
    for (const auto& [a, b] : {std::pair{in.image, plain.image}, {in.text, plain.text}, {in.log_scale, plain.log_scale}}) {
      const std::vector<float> given = a.grad().to_vector(), expected = b.grad().to_vector();
      REQUIRE(given.size() == expected.size());
      for (std::size_t i = 0; i < given.size(); ++i) CHECK(given[i] == Approx(expected[i]).epsilon(2e-5).margin(2e-6));
    }
  }
}

TEST_CASE("distinct captions: positives and negatives are the same loss") {
  Inputs in = inputs_of("n5", "n5.scale14.diagonal");
  in.caption_ids = arange(5);
  CHECK(loss_of(in, EqualCaptions::positives).item() == loss_of(in, EqualCaptions::negatives).item());
}

TEST_CASE("the logit scale is held in [0, ln 100]") {
  ModelConfig config;
  config.embed_dim = 4;
  config.vision.layers = {1};
  config.vision.width = config.vision.head_width = 8;
  config.vision.image_size = config.vision.patch_size = 4;
  config.text.context_length = 4;
  config.text.vocab_size = 16;
  config.text.width = 8;
  config.text.heads = config.text.layers = 1;
  Clip model(config, 0);
  CHECK(model.logit_scale_value() == Approx(1 / 0.07));  // the start
  for (const auto& [given, held] : {std::pair{5.0, 100.0}, {-1.0, 1.0}, {2.0, std::exp(2.0)}}) {
    {
      const NoGrad guard;
      model.logit_scale.value.fill_(given);
    }
    model.clamp_logit_scale();
    CHECK(model.logit_scale_value() == Approx(held));
  }
  CHECK(model.logit_scale.value.requires_grad());
}

}  // namespace
}  // namespace twinlens::test
