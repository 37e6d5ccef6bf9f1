#include "clip/src/formats/layout.h"

#include <algorithm>
#include <array>

#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Names = std::vector<std::string>;

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }
bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void add_both(Names& out, const std::string& module) {
  out.push_back(module + ".weight");
  out.push_back(module + ".bias");
}

void add_blocks(Names& out, const std::string& prefix, int layers, bool layer_scale) {
  for (int i = 0; i < layers; ++i) {
    const std::string block = prefix + "transformer.resblocks." + std::to_string(i);
    add_both(out, block + ".ln_1");
    out.push_back(block + ".attn.in_proj_weight");
    out.push_back(block + ".attn.in_proj_bias");
    add_both(out, block + ".attn.out_proj");
    if (layer_scale) out.push_back(block + ".ls_1.gamma");
    for (const char* module : {".ln_2", ".mlp.c_fc", ".mlp.c_proj"}) add_both(out, block + module);
    if (layer_scale) out.push_back(block + ".ls_2.gamma");
  }
}

void add_vit(Names& out, const ModelConfig& c) {
  const VisionConfig& v = c.vision;
  if (!v.is_siglip()) out.emplace_back("visual.class_embedding");
  out.emplace_back("visual.positional_embedding");
  if (!v.is_siglip()) out.emplace_back("visual.proj");
  out.emplace_back("visual.conv1.weight");
  if (v.is_siglip()) out.emplace_back("visual.conv1.bias");
  if (!v.no_ln_pre) add_both(out, "visual.ln_pre");
  add_blocks(out, "visual.", v.layers[0], v.ls_init_value != 0.0);
  add_both(out, "visual.ln_post");
  if (v.is_siglip()) {
    out.emplace_back("visual.attn_pool.latent");
    for (const char* module : {"q", "kv", "proj", "norm", "mlp.c_fc", "mlp.c_proj"})
      add_both(out, std::string("visual.attn_pool.") + module);
  } else if (v.attentional_pool) {
    out.emplace_back("visual.attn_pool.query");
    const std::array separate{"q_proj_weight", "k_proj_weight", "v_proj_weight"};
    if (v.width == c.embed_dim) {
      out.emplace_back("visual.attn_pool.attn.in_proj_weight");
    } else {
      for (const char* name : separate) out.push_back(std::string("visual.attn_pool.attn.") + name);
    }
    out.emplace_back("visual.attn_pool.attn.in_proj_bias");
    for (const char* module : {"attn.out_proj", "ln_q", "ln_k"}) add_both(out, std::string("visual.attn_pool.") + module);
  }
}

// Convolutions with their batch norms, as (convolution, norm).
std::vector<std::pair<std::string, std::string>> resnet_pairs(const VisionConfig& v) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const char* n : {"1", "2", "3"}) out.emplace_back(std::string("visual.conv") + n, std::string("visual.bn") + n);
  for (std::size_t stage = 0; stage < 4; ++stage) {
    for (int i = 0; i < v.layers[stage]; ++i) {
      const std::string block = "visual.layer" + std::to_string(stage + 1) + "." + std::to_string(i);
      for (const char* n : {"1", "2", "3"}) out.emplace_back(block + ".conv" + n, block + ".bn" + n);
      if (i == 0) out.emplace_back(block + ".downsample.0", block + ".downsample.1");
    }
  }
  return out;
}

void add_resnet(Names& out, const VisionConfig& v) {
  for (const auto& [conv, bn] : resnet_pairs(v)) {
    out.push_back(conv + ".weight");
    add_both(out, bn);
  }
  out.emplace_back("visual.attnpool.positional_embedding");
  for (const char* module : {"k_proj", "q_proj", "v_proj", "c_proj"}) add_both(out, std::string("visual.attnpool.") + module);
}

// Longest first: old -> new at the first place where it stands.
using Replacements = std::vector<std::pair<std::string, std::string>>;
std::string replaced(std::string name, const Replacements& replacements) {
  for (const auto& [old, fresh] : replacements) {
    const std::size_t at = name.find(old);
    if (at != std::string::npos) name.replace(at, old.size(), fresh);
  }
  return name;
}

LayoutPiece same(const std::string& own, const std::string& theirs) { return {{{own}}, {{theirs}}}; }

// --- open_clip: class CLIP, or CustomTextCLIP, or timm's trunk ---------------------------------------------------------------------------
LayoutPiece open_clip_piece(const std::string& name, const ModelConfig& c) {
  if (starts_with(name, "logit_")) return same(name, name);
  if (!starts_with(name, "visual.")) return same(name, (c.custom_text ? "text." : "") + name);
  if (!c.vision.is_siglip()) return same(name, name);
  static const Replacements timm = {{"visual.positional_embedding", "visual.trunk.pos_embed"},
                                    {"visual.conv1.", "visual.trunk.patch_embed.proj."},
                                    {"visual.ln_post.", "visual.trunk.norm."},
                                    {"visual.attn_pool.", "visual.trunk.attn_pool."},
                                    {"visual.transformer.resblocks.", "visual.trunk.blocks."},
                                    {".ln_1.", ".norm1."},
                                    {".ln_2.", ".norm2."},
                                    {".attn.in_proj_", ".attn.qkv."},
                                    {".attn.out_proj.", ".attn.proj."},
                                    {".mlp.c_fc.", ".mlp.fc1."},
                                    {".mlp.c_proj.", ".mlp.fc2."}};
  LayoutPiece piece = same(name, replaced(name, timm));
  piece.leading_one = name == "visual.positional_embedding";
  return piece;
}

// --- Hugging Face: CLIPModel, SiglipModel
// -----------------------------------------------------------------------------------------------------
const Replacements& hugging_face_names() {
  static const Replacements names = {{"visual.class_embedding", "vision_model.embeddings.class_embedding"},
                                     {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
                                     {"visual.conv1.", "vision_model.embeddings.patch_embedding."},
                                     {"visual.ln_pre.", "vision_model.pre_layrnorm."},
                                     {"visual.ln_post.", "vision_model.post_layernorm."},
                                     {"visual.transformer.resblocks.", "vision_model.encoder.layers."},
                                     {"visual.attn_pool.latent", "vision_model.head.probe"},
                                     {"visual.attn_pool.proj.", "vision_model.head.attention.out_proj."},
                                     {"visual.attn_pool.norm.", "vision_model.head.layernorm."},
                                     {"visual.attn_pool.mlp.", "vision_model.head.mlp."},
                                     {"token_embedding.", "text_model.embeddings.token_embedding."},
                                     {"ln_final.", "text_model.final_layer_norm."},
                                     {".ln_1.", ".layer_norm1."},
                                     {".ln_2.", ".layer_norm2."},
                                     {".attn.out_proj.", ".self_attn.out_proj."},
                                     {".mlp.c_fc.", ".mlp.fc1."},
                                     {".mlp.c_proj.", ".mlp.fc2."}};
  return names;
}

[[noreturn]] void refuse_hugging_face(const std::string& what) {
  throw ConfigError("the Hugging Face layout has no place for " + what + "; --to hf; use --to open_clip");
}

void check_hugging_face(const ModelConfig& c) {
  const auto& refuse = refuse_hugging_face;
  const VisionConfig& v = c.vision;
  if (v.is_resnet()) refuse("a ResNet image tower: its CLIPModel knows ViT only");
  if (v.ls_init_value != 0.0 || c.text.ls_init_value != 0.0) refuse("layer scale");
  if (v.attentional_pool) refuse("attentional pooling");
  if (c.preprocess.resize_mode == "longest") refuse("pictures that are resized by their longest side and filled up");
  if (v.is_siglip()) {
    if (!c.text.no_causal_mask || c.text.pool_type != "last" || !c.text.proj_bias) refuse("this text tower beside a SigLIP image tower");
    if (!c.init_logit_bias.has_value()) refuse("a SigLIP without logit bias");
    return;
  }
  if (v.no_ln_pre || v.pool_type != "tok") refuse("an image tower without ln_pre, or one that averages its tokens");
  if (c.text.no_causal_mask || c.text.proj_bias) refuse("a text tower without causal mask, or a projection with bias");
  if (c.text.pool_type != "argmax" && c.text.pool_type != "eos") refuse("a text tower that is not read at the end of text");
  if (c.init_logit_bias.has_value()) refuse("a logit bias in a CLIPModel");
}

// OpenAI's code knows one ViT, one ResNet and one text tower.
void check_openai(const ModelConfig& c) {
  const VisionConfig& v = c.vision;
  const bool plain_image = v.is_resnet() || (!v.no_ln_pre && v.pools_one_token() && v.ls_init_value == 0.0);
  const bool plain_text = c.text.needs_no_padding() && !c.text.proj_bias && c.text.ls_init_value == 0.0 && !c.custom_text;
  if (!plain_image || !plain_text || c.init_logit_bias.has_value()) {
    throw ConfigError("the OpenAI layout has no place for towers other than OpenAI's own; --to openai; use --to open_clip");
  }
}

LayoutPiece hugging_face_piece(const std::string& name, const ModelConfig& c) {
  const bool siglip = c.vision.is_siglip();
  if (starts_with(name, "logit_")) {
    LayoutPiece piece = same(name, name);
    piece.leading_one = siglip;  // (1) there
    return piece;
  }
  if (name == "visual.proj") return {{{name}}, {{"visual_projection.weight"}}, true};
  if (name == "text_projection") return {{{name}}, {{"text_projection.weight"}}, true};
  if (starts_with(name, "text_projection.")) return same(name, "text_model.head." + name.substr(16));
  if (name == "positional_embedding") return same(name, "text_model.embeddings.position_embedding.weight");
  std::string theirs = starts_with(name, "transformer.resblocks.") ? "text_model.encoder.layers." + name.substr(22) : name;
  theirs = replaced(theirs, hugging_face_names());
  const std::size_t joint = theirs.find(".attn.in_proj_");
  if (joint == std::string::npos) return same(name, theirs);
  const std::string block = theirs.substr(0, joint) + ".self_attn.", kind = "_proj." + theirs.substr(joint + 14);
  return {{{name}}, {{block + "q" + kind}, {block + "k" + kind}, {block + "v" + kind}}};
}

// SigLIP's pooling: q and kv here, one in_proj there.
void add_hugging_face_pool(std::vector<LayoutPiece>& out) {
  for (const char* kind : {"weight", "bias"}) {
    const std::string own = "visual.attn_pool.";
    out.push_back({{{own + "q." + kind, 1}, {own + "kv." + kind, 2}}, {{std::string("vision_model.head.attention.in_proj_") + kind, 3}}});
  }
}

// --- moving tensors ---------------------------------------------------------------------------------------------------------------------
StateDict move(const std::vector<LayoutPiece>& pieces, const StateDict& in, bool to_theirs) {
  const NoGrad guard;
  StateDict out;
  std::vector<std::string> missing;
  for (const LayoutPiece& piece : pieces) {
    const auto &from = to_theirs ? piece.own : piece.theirs, &to = to_theirs ? piece.theirs : piece.own;
    std::vector<Tensor> parts;
    for (const LayoutPiece::Part& part : from) {
      const auto it = in.find(part.name);
      if (it == in.end()) {
        missing.push_back(part.name);
      } else {
        parts.push_back(it->second);
      }
    }
    if (parts.size() != from.size()) continue;
    Tensor x = parts.size() == 1 ? parts[0] : concat(parts, 0);
    if (piece.leading_one && !to_theirs && x.rank() > 0 && x.size(0) == 1) x = x.squeeze(0);
    if (piece.transposed && x.rank() == 2) x = dense(x.transpose(0, 1));
    if (piece.leading_one && to_theirs) x = x.unsqueeze(0);
    if (to.size() == 1) {
      out[to[0].name] = x;
      continue;
    }
    int shares = 0, done = 0;
    for (const LayoutPiece::Part& part : to) shares += part.share;
    if (x.rank() == 0 || x.size(0) % shares != 0) {
      throw ConfigError("weights do not fit the layout: '" + from[0].name + "' cannot be cut into " + std::to_string(shares) +
                        " parts; shape " + to_string(x.shape()) + "; use the model configuration that the weights were made with");
    }
    const std::int64_t unit = x.size(0) / shares;
    for (const LayoutPiece::Part& part : to) {
      out[part.name] = x.slice(0, done * unit, (done + part.share) * unit).clone();
      done += part.share;
    }
  }
  if (!missing.empty()) {
    throw ConfigError("weights do not fit the model; missing:" + few_of(missing) +
                      "; use the model configuration that the weights were made with");
  }
  return out;
}

}  // namespace

std::vector<std::string> parameter_names(const ModelConfig& c) {
  Names out{"positional_embedding"};
  if (c.text.proj_bias) {
    add_both(out, "text_projection");
  } else {
    out.emplace_back("text_projection");
  }
  add_blocks(out, "", c.text.layers, c.text.ls_init_value != 0.0);
  out.emplace_back("token_embedding.weight");
  add_both(out, "ln_final");
  out.emplace_back("logit_scale");
  if (c.init_logit_bias.has_value()) out.emplace_back("logit_bias");
  if (c.vision.is_resnet()) {
    add_resnet(out, c.vision);
  } else {
    add_vit(out, c);
  }
  return out;
}

std::vector<std::string> buffer_names(const ModelConfig& c) {
  Names out;
  if (!c.vision.is_resnet()) return out;
  for (const auto& [conv, bn] : resnet_pairs(c.vision)) {
    out.push_back(bn + ".running_mean");
    out.push_back(bn + ".running_var");
  }
  return out;
}

void check_writable(Layout layout, const ModelConfig& c) {
  if (layout != Layout::hugging_face) return;
  const VisionConfig& v = c.vision;
  // config.json does not name a tokenizer or its cleaning: read again (hugging_face.cpp), it stands for these.
  const TokenizerOptions text = tokenizer_options({c.text.hf_tokenizer_name, c.text.tokenizer_kwargs, c.text.vocab_size});
  if (c.text.hf_tokenizer_name.empty() == v.is_siglip()) {
    refuse_hugging_face(v.is_siglip() ? "CLIP's own tokenizer in a SiglipModel: it has text_cfg.hf_tokenizer_name"
                                      : "the text_cfg.hf_tokenizer_name '" + c.text.hf_tokenizer_name + "' in a CLIPModel");
  }
  if (v.is_siglip() && c.text.vocab_size >= 256000 && c.text.pad_id == 1) {
    refuse_hugging_face("text_cfg.pad_id = 1 with Gemma's vocabulary: transformers writes 1 where it means 0");
  }
  if (text.cleaning != (v.is_siglip() ? Cleaning::canonicalize : Cleaning::ftfy) || (text.strip_sep_token && v.is_siglip())) {
    refuse_hugging_face(
        "text_cfg.tokenizer_kwargs " + (c.text.tokenizer_kwargs.empty() ? "without 'clean'" : c.text.tokenizer_kwargs) + " in a " +
        (v.is_siglip() ? "SiglipModel, which has {\"clean\":\"canonicalize\"}" : "CLIPModel, which has {\"clean\":\"lower\"}"));
  }
}

std::vector<LayoutPiece> layout_pieces(Layout layout, const ModelConfig& c) {
  if (layout == Layout::hugging_face) check_hugging_face(c);
  if (layout == Layout::openai) check_openai(c);
  std::vector<LayoutPiece> out;
  for (const std::string& name : parameter_names(c)) {
    if (layout == Layout::hugging_face) {
      if (!starts_with(name, "visual.attn_pool.q.") && !starts_with(name, "visual.attn_pool.kv."))
        out.push_back(hugging_face_piece(name, c));
    } else {
      out.push_back(layout == Layout::openai ? same(name, name) : open_clip_piece(name, c));
    }
  }
  if (layout == Layout::hugging_face && c.vision.is_siglip()) add_hugging_face_pool(out);
  for (const std::string& name : buffer_names(c)) out.push_back(same(name, name));
  return out;
}

bool is_left_out(const std::string& name) {
  return name == "input_resolution" || name == "context_length" || name == "vocab_size" || name == "attn_mask" ||
         name == "text.attn_mask" || ends_with(name, ".num_batches_tracked") || ends_with(name, ".position_ids");
}

Layout detect_layout(const std::set<std::string>& names, const std::string& source) {
  const auto has = [&](const char* name) { return names.count(name) != 0; };
  if (has("vision_model.embeddings.patch_embedding.weight") || has("text_model.embeddings.token_embedding.weight"))
    return Layout::hugging_face;
  if (has("input_resolution") && has("visual.conv1.weight")) return Layout::openai;
  if (has("visual.conv1.weight") || has("visual.trunk.patch_embed.proj.weight")) return Layout::open_clip;
  throw ConfigError("no layout of CLIP weights is recognised; " + source + "; its first tensor is '" +
                    (names.empty() ? std::string("(none)") : *names.begin()) +
                    "'; give a checkpoint of OpenAI's CLIP, open_clip, or Hugging Face's CLIPModel or SiglipModel");
}

StateDict from_layout(const std::vector<LayoutPiece>& pieces, const StateDict& theirs) { return move(pieces, theirs, false); }
StateDict to_layout(const std::vector<LayoutPiece>& pieces, const StateDict& own) { return move(pieces, own, true); }

}  // namespace twinlens
