// Full-size models against open_clip and transformers, with weights that both sides make from names (tests/golden/make_parity.py). The
// weights enter in the layout of their library, so that names, joints and transposes are proven as well.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "clip/src/formats/hugging_face.h"
#include "clip/src/formats/layout.h"
#include "tests/support/counted.h"
#include "tests/support/golden.h"

#include "twinlens/clip/loss.h"
#include "twinlens/clip/model.h"
#include "twinlens/core/autograd.h"

namespace twinlens::test {
namespace {

constexpr double kEmbedding = 1e-5;  // 2-norm of a row's difference
constexpr double kGradient = 1e-4;   // of a parameter, relative to its norm
constexpr double kBf16 = 1.25;       // times the distance of PyTorch's autocast

const Golden& parity() {
  static const Golden golden("parity");
  return golden;
}

struct Case {
  std::string name;
  ModelConfig config;
  Layout layout = Layout::open_clip;
};

Case case_of(const std::string& name) {
  const nlohmann::json info = golden_json("parity").at(name);
  if (info.contains("hugging_face")) return {name, parse_hugging_face_config(info.at("hugging_face").dump(), name), Layout::hugging_face};
  if (info.contains("open_clip")) return {name, parse_model_config(info.at("open_clip").dump(), name), Layout::open_clip};
  return {name, *builtin_model_config(name), Layout::open_clip};
}

// A ResNet's biases that keep the inputs of its ReLUs off 0; make_parity.py says why.
void move_biases(const std::string& name, StateDict& weights) {
  const nlohmann::json info = golden_json("parity").at(name);
  if (!info.contains("moved_biases")) return;
  for (const auto& [bias, moves] : info.at("moved_biases").items()) {
    float* p = weights.at(bias).data<float>();
    for (const auto& move : moves) p[move.at(0).get<std::size_t>()] += std::ldexp(move.at(1).get<float>(), -16);
  }
}

// The parameters and statistics of a model are written in the layout's names and shapes, filled there, and read back.
void fill(const Case& c, Clip& model) {
  const std::vector<LayoutPiece> pieces = layout_pieces(c.layout, c.config);
  const StateDict shapes = to_layout(pieces, state_dict(collect(model)));
  StateDict theirs;
  for (const auto& [name, tensor] : shapes) theirs[name] = counted_weight(name, tensor.shape());
  move_biases(c.name, theirs);
  StateDict own = from_layout(pieces, theirs);
  for (auto& [name, tensor] : own) {
    if (tensor.rank() == 1 && tensor.count() == 1) tensor = tensor.reshape({});
  }
  load_state_dict(collect(model), own);
}

// (2, S, S, 3): noise over a colour for each quarter, which ResNets get twice as strong.
Tensor images_of(const Case& c) {
  const std::int64_t s = c.config.vision.image_size;
  const Tensor noise = counted_normal(c.name + ".images", {2, 3, s, s}), quarters = counted_normal(c.name + ".quarters", {2, 3, 2, 2});
  const float strength = c.name.starts_with("RN") ? 2.0F : 1.0F;
  float* p = noise.data<float>();
  for (std::int64_t i = 0; i < noise.count(); ++i) {
    const std::int64_t row = i / s % s, column = i % s;
    p[i] += strength * quarters.data<float>()[i / (s * s) * 4 + row / (s / 2) * 2 + column / (s / 2)];
  }
  return nchw_to_nhwc(noise);
}

TokenBatch captions_of(const Case& c) {
  const Tensor tokens = parity().tensor(c.name + ".tokens");
  const std::vector<std::int64_t> ids = tokens.to_ints();
  std::vector<std::vector<std::int32_t>> captions;
  for (std::int64_t b = 0; b < tokens.size(0); ++b) {
    const auto row = ids.begin() + b * tokens.size(1);
    const auto end = std::max_element(row, row + tokens.size(1)) + 1;  // the first largest id
    captions.emplace_back(row, end);
  }
  return batch_captions(c.config.text, captions);
}

// Mean over rows of the 2-norm of the difference, and the largest.
struct Rows {
  double mean = 0.0, largest = 0.0;
};
Rows distance(const Tensor& got, const Tensor& truth) {
  const std::vector<float> a = got.to_vector(), b = truth.to_vector();
  const auto n = static_cast<std::size_t>(truth.size(0)), e = static_cast<std::size_t>(truth.size(1));
  Rows out;
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (std::size_t k = 0; k < e; ++k) {
      const double d = static_cast<double>(a[i * e + k]) - static_cast<double>(b[i * e + k]);
      sum += d * d;
    }
    out.mean += std::sqrt(sum) / static_cast<double>(n);
    out.largest = std::max(out.largest, std::sqrt(sum));
  }
  return out;
}

void check_embeddings(const Case& c, const Clip& model, const Tensor& images, const TokenBatch& captions) {
  const NoGrad guard;
  const Tensor truth[2] = {parity().tensor(c.name + ".image"), parity().tensor(c.name + ".text")};
  const char* towers[2] = {"image", "text"};
  Context bf16;
  bf16.compute = Compute::bf16;
  for (int t = 0; t < 2; ++t) {
    INFO(c.name << " " << towers[t]);
    const auto encode = [&](const Context& context) {
      return t == 0 ? model.encode_image(images, context) : model.encode_text(captions, context);
    };
    const Rows fp32 = distance(encode({}), truth[t]), low = distance(encode(bf16), truth[t]);
    const double theirs = parity().number(c.name + ".bf16_distance." + towers[t]);
    std::printf("%s %s: fp32 %.2e, bf16 %.2e = %.2f times PyTorch's\n", c.name.c_str(), towers[t], fp32.largest, low.mean,
                low.mean / theirs);
    CHECK(fp32.largest <= kEmbedding);
    CHECK(low.mean <= kBf16 * theirs);
  }
}

// The gradients in the layout's names. A piece that is cut or joined there is cut or joined here, too.
void check_gradients(const Case& c, Clip& model, const Tensor& images, const TokenBatch& captions) {
  const Context plain;  // not training: batch norm uses its running statistics, see make_parity.py
  const auto alone = solo_communicator();
  const ClipLossInputs features{model.encode_image(images, plain), model.encode_text(captions, plain), model.logit_scale.value, {}, {}};
  const Tensor loss = clip_loss(features, EqualCaptions::negatives, *alone);
  CHECK(static_cast<double>(loss.item()) == Approx(parity().number(c.name + ".loss")).epsilon(1e-4));
  backward(loss);
  StateDict gradients;
  const Collector all = collect(model);
  for (const NamedParameter& p : all.parameters) {
    const Tensor& g = p.parameter->value.grad();
    gradients[p.name] = g.defined() ? g : zeros(p.parameter->value.shape());
  }
  for (const NamedBuffer& b : all.buffers) gradients[b.name] = *b.tensor;
  StateDict theirs = to_layout(layout_pieces(c.layout, c.config), gradients);
  for (const NamedBuffer& b : all.buffers) theirs.erase(b.name);
  theirs.erase("logit_bias");
  const std::vector<double> norms = parity().truth(c.name + ".gradient_norms"), sketches = parity().truth(c.name + ".gradient_sketches");
  REQUIRE(norms.size() == theirs.size());
  double all_squared = 0.0, worst = 0.0;
  std::string worst_name;
  for (const double n : norms) all_squared += n * n;
  std::size_t i = 0;
  for (const auto& [name, gradient] : theirs) {
    // Keys' biases shift a softmax evenly: their gradient is 0 but for rounding. What is far below the whole is compared with the whole.
    const double unit = std::max(norms[i], 1e-4 * std::sqrt(all_squared));
    double difference = 0.0;
    for (std::size_t k = 0; k < 2; ++k) {
      const double d = counted_signs_dot("sketch" + std::to_string(k) + "." + name, gradient) - sketches[2 * i + k];
      difference += d * d / 2.0;
    }
    const double relative = std::sqrt(difference) / unit;
    if (relative > worst) {
      worst = relative;
      worst_name = name;
    }
    INFO(c.name << " " << name << " norm " << norms[i]);
    CHECK(relative <= kGradient);
    ++i;
  }
  std::printf("%s gradients: worst %.2e (%s)\n", c.name.c_str(), worst, worst_name.c_str());
}

void check_case(const std::string& name) {
  const Case c = case_of(name);
  Clip model(c.config, 0);
  fill(c, model);
  const Tensor images = images_of(c);
  const TokenBatch captions = captions_of(c);
  check_embeddings(c, model, images, captions);
  check_gradients(c, model, images, captions);
}

TEST_CASE("parity: the generator's values") {
  // Printed by tests/golden/counted.py: normal("a.b", (3,)) and bits("a.b", 0, 1).
  CHECK(Counted("a.b").bits(0) == 0x325C34C0CCF48FC8U);
  const std::vector<float> x = counted_normal("a.b", {3}).to_vector();
  CHECK(x == std::vector<float>{-0.406953722F, 0.339216202F, 0.728039622F});
}

TEST_CASE("parity: ViT-B-32", "[golden]") { check_case("ViT-B-32"); }
TEST_CASE("parity: RN50", "[golden]") { check_case("RN50"); }
TEST_CASE("parity: CLIPA's kind, small", "[golden]") { check_case("small-CLIPA"); }
TEST_CASE("parity: transformers' CLIPModel", "[golden][.full]") { check_case("hf-clip"); }
TEST_CASE("parity: ViT-B-32-quickgelu", "[golden][.full]") { check_case("ViT-B-32-quickgelu"); }
TEST_CASE("parity: ViT-B-16", "[golden][.full]") { check_case("ViT-B-16"); }
TEST_CASE("parity: RN50x4", "[golden][.full]") { check_case("RN50x4"); }
TEST_CASE("parity: ViT-B-16-SigLIP", "[golden][.full]") { check_case("ViT-B-16-SigLIP"); }
TEST_CASE("parity: transformers' SiglipModel", "[golden][.full]") { check_case("hf-siglip"); }
TEST_CASE("parity: ViT-L-14", "[golden][.full]") { check_case("ViT-L-14"); }
TEST_CASE("parity: ViT-L-14-CLIPA", "[golden][.full]") { check_case("ViT-L-14-CLIPA"); }

}  // namespace
}  // namespace twinlens::test
