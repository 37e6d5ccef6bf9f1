#include "clip/src/formats/infer_config.h"

#include <cmath>
#include <optional>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr std::int64_t kLargest = 1 << 20;  // of any size in a config

class Shapes {
 public:
  Shapes(const TensorShapes& shapes, std::string source) : shapes_(shapes), source_(std::move(source)) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw ConfigError("the configuration cannot be told from the weights: " + what + "; " + source_ +
                      "; put open_clip_config.json beside them, or name the model with --model and these with --pretrained");
  }
  bool has(const std::string& name) const { return shapes_.count(name) != 0; }
  int size(const std::string& name, std::size_t dimension, std::size_t rank) const {
    const auto it = shapes_.find(name);
    if (it == shapes_.end()) fail("there is no tensor '" + name + "'");
    if (it->second.size() != rank) fail("'" + name + "' has " + std::to_string(it->second.size()) + " dimensions");
    const std::int64_t n = it->second[dimension];
    if (n < 1 || n > kLargest) fail("'" + name + "' has the size " + std::to_string(n));
    return static_cast<int>(n);
  }
  int layers(const std::string& prefix, const std::string& suffix) const {
    int n = 0;
    while (has(prefix + std::to_string(n) + suffix)) ++n;
    return n;
  }
  int side(int places, const std::string& name) const {
    const int grid = static_cast<int>(std::lround(std::sqrt(places)));
    if (grid * grid != places || grid == 0) fail("'" + name + "' has " + std::to_string(places) + " places, which is no square");
    return grid;
  }

 private:
  const TensorShapes& shapes_;
  std::string source_;
};

void set_vit(const Shapes& s, VisionConfig& v) {
  const std::string blocks = "visual.transformer.resblocks.";
  v.width = s.size("visual.conv1.weight", 0, 4);
  v.patch_size = s.size("visual.conv1.weight", 3, 4);
  v.layers = {s.layers(blocks, ".attn.in_proj_weight")};
  v.image_size = s.side(s.size("visual.positional_embedding", 0, 2) - 1, "visual.positional_embedding") * v.patch_size;
  v.mlp_ratio = mlp_ratio_of(s.size(blocks + "0.mlp.c_fc.weight", 0, 2), v.width);
  v.no_ln_pre = !s.has("visual.ln_pre.weight");
  if (s.has(blocks + "0.ls_1.gamma")) v.ls_init_value = 1e-5;
  if (s.has("visual.attn_pool.query")) {
    v.attentional_pool = true;
    v.attn_pooler_queries = s.size("visual.attn_pool.query", 0, 2);
  }
}

void set_resnet(const Shapes& s, VisionConfig& v) {
  v.layers.clear();
  for (const char* stage : {"1", "2", "3", "4"}) {
    v.layers.push_back(s.layers(std::string("visual.layer") + stage + ".", ".conv1.weight"));
  }
  v.width = s.size("visual.layer1.0.conv1.weight", 0, 4);
  v.image_size = 32 * s.side(s.size("visual.attnpool.positional_embedding", 0, 2) - 1, "visual.attnpool.positional_embedding");
}

// What CLIPA's towers do with their tokens, which are those of a built-in model.
void take_pooling(ModelConfig& c, const ModelConfig& known) {
  c.vision.pool_type = known.vision.pool_type;
  c.vision.final_ln_after_pool = known.vision.final_ln_after_pool;
  c.text.pool_type = known.text.pool_type;
  c.text.no_causal_mask = known.text.no_causal_mask;
  c.text.hf_tokenizer_name = known.text.hf_tokenizer_name;
  c.text.tokenizer_kwargs = known.text.tokenizer_kwargs;
  c.preprocess = known.preprocess;
}

// The built-in model with these sizes.
std::optional<ModelConfig> known_sizes(const ModelConfig& c) {
  for (const std::string& name : builtin_model_names()) {
    const ModelConfig known = *builtin_model_config(name);
    const bool same = known.vision.layers == c.vision.layers && known.vision.width == c.vision.width &&
                      known.vision.is_siglip() == c.vision.is_siglip() && known.text.width == c.text.width &&
                      known.text.layers == c.text.layers && known.embed_dim == c.embed_dim && known.vision.no_ln_pre == c.vision.no_ln_pre;
    if (same) return known;
  }
  return {};
}

// Heads do not show in shapes.
void take_heads(ModelConfig& c) {
  const std::optional<ModelConfig> known = known_sizes(c);
  if (!known.has_value()) return;
  if (c.vision.no_ln_pre && known->text.vocab_size == c.text.vocab_size) take_pooling(c, *known);
  c.vision.head_width = known->vision.head_width;
  if (!c.vision.is_resnet())
    c.vision.mlp_ratio =
        static_cast<int>(known->vision.width * known->vision.mlp_ratio) == static_cast<int>(c.vision.width * c.vision.mlp_ratio)
            ? known->vision.mlp_ratio
            : c.vision.mlp_ratio;
  c.text.heads = known->text.heads;
}

}  // namespace

std::string not_in_shapes(const ModelConfig& c) {
  // CLIP's own towers have ln_pre and a projection without bias. Those that have not also pool or mask in other ways.
  if (c.vision.no_ln_pre && c.vision.pool_type == "tok") return "without ln_pre, and how its image tower pools is not in the weights";
  if (c.text.proj_bias) return "with a biased text projection, and how its text tower pools and masks is not in the weights";
  return {};
}

std::string guess_of_heads(const ModelConfig& c) {
  if (known_sizes(c).has_value()) return {};
  return "weights do not say how many heads their attention has, and heads of " + std::to_string(c.vision.head_width) +
         " columns are taken in the image tower, " + std::to_string(c.text.heads) + " heads in the text tower";
}

double mlp_ratio_of(int hidden, int width) { return hidden % width == 0 ? hidden / width : (hidden + 0.25) / width; }

ModelConfig infer_config(const TensorShapes& shapes, const std::string& source) {
  const Shapes s(shapes, source);
  if (!s.has("visual.conv1.weight") || !s.has("token_embedding.weight")) s.fail("these are not OpenAI's names of towers");
  ModelConfig c;
  if (s.has("visual.layer1.0.conv1.weight")) {
    set_resnet(s, c.vision);
  } else {
    set_vit(s, c.vision);
  }
  const std::string blocks = "transformer.resblocks.";
  c.text.width = s.size("ln_final.weight", 0, 1);
  c.text.heads = std::max(1, c.text.width / 64);
  c.text.layers = s.layers(blocks, ".attn.in_proj_weight");
  c.text.vocab_size = s.size("token_embedding.weight", 0, 2);
  c.text.context_length = s.size("positional_embedding", 0, 2);
  c.text.mlp_ratio = mlp_ratio_of(s.size(blocks + "0.mlp.c_fc.weight", 0, 2), c.text.width);
  if (s.has(blocks + "0.ls_1.gamma")) c.text.ls_init_value = 1e-5;
  c.text.proj_bias = s.has("text_projection.bias");
  c.embed_dim = c.text.proj_bias ? s.size("text_projection.weight", 0, 2) : s.size("text_projection", 1, 2);
  if (s.has("logit_bias")) c.init_logit_bias = -10.0;
  take_heads(c);
  c.validate();
  return c;
}

}  // namespace twinlens
