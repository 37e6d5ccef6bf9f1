#include "twinlens/clip/text_tower.h"

#include <algorithm>
#include <cmath>

#include "twinlens/core/check.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {

TokenBatch pack_captions(const std::vector<std::vector<std::int32_t>>& captions, int pad_to) {
  std::vector<std::int64_t> ids, positions, offsets{0}, last;
  for (const std::vector<std::int32_t>& caption : captions) {
    if (caption.empty())
      throw ShapeError("pack_captions: a caption without tokens; caption " + std::to_string(last.size()) +
                       "; give at least start and end of text");
    if (pad_to > 0 && static_cast<int>(caption.size()) > pad_to) {
      throw ShapeError("pack_captions: a caption of " + std::to_string(caption.size()) + " tokens; context " + std::to_string(pad_to) +
                       "; truncate it first");
    }
    for (std::size_t i = 0; i < caption.size(); ++i) {
      ids.push_back(caption[i]);
      positions.push_back(static_cast<std::int64_t>(i));
    }
    last.push_back(static_cast<std::int64_t>(ids.size()) - 1);
    for (int i = static_cast<int>(caption.size()); i < pad_to; ++i) {
      ids.push_back(0);
      positions.push_back(i);
    }
    offsets.push_back(static_cast<std::int64_t>(ids.size()));
  }
  const auto tensor = [](const std::vector<std::int64_t>& v) { return from_vector(v, {static_cast<std::int64_t>(v.size())}); };
  return {tensor(ids), tensor(positions), SequenceOffsets(offsets), tensor(last), pad_to == 0};
}

TokenBatch TokenBatch::to(Device device) const {
  return {ids.to(device), positions.to(device), offsets.to(device), last.to(device), packed};
}

// Where a caption is read: the first of the highest token, or the first end of text. Its length where there is none.
static std::size_t read_position(const TextConfig& config, const std::vector<std::int32_t>& caption) {
  const auto at = config.pool_type == "eos" ? std::find(caption.begin(), caption.end(), config.eos_id)
                                            : std::max_element(caption.begin(), caption.end());
  return static_cast<std::size_t>(at - caption.begin());
}

void cut_behind_read(const TextConfig& config, std::vector<std::vector<std::int32_t>>& captions, bool pack) {
  if (!config.needs_no_padding()) return;
  for (std::vector<std::int32_t>& caption : captions) {
    const std::size_t at = read_position(config, caption);
    if (at < caption.size()) {
      caption.resize(at + 1);
    } else if (config.pad_id == config.eos_id && static_cast<int>(caption.size()) < config.context_length) {
      caption.push_back(config.pad_id);  // the first of the padding is the end of text
    } else if (!caption.empty() && (pack || config.pad_id != config.eos_id)) {
      caption.resize(1);  // as torch's argmax of no match; what is to be padded must not be given an end of text in exchange
    }
  }
}

TokenBatch batch_captions(const TextConfig& config, const std::vector<std::vector<std::int32_t>>& captions, bool pack) {
  std::vector<std::vector<std::int32_t>> rows = captions;
  const bool packed = config.needs_no_padding() && pack;
  cut_behind_read(config, rows, packed);
  if (packed) return pack_captions(rows);
  std::vector<std::int64_t> read;
  const auto length = static_cast<std::size_t>(config.context_length);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::size_t at = read_position(config, rows[i]);
    if (at == rows[i].size() && config.pad_id != config.eos_id) at = 0;  // as torch's argmax of no match
    if (config.pool_type == "last") at = length - 1;
    if (config.pool_type == "first" || at >= length) at = 0;
    read.push_back(static_cast<std::int64_t>(i * length + at));
    if (rows[i].size() < length) rows[i].resize(length, config.pad_id);
  }
  TokenBatch batch = pack_captions(rows, config.context_length);
  batch.last = from_vector(read, {static_cast<std::int64_t>(read.size())});
  batch.packed = config.pool_type == "last";
  return batch;
}

static BlockOptions text_block_options(const ModelConfig& c) {
  BlockOptions options(c.text_activation());
  options.eps = c.text.eps;
  options.layer_scale = c.text.ls_init_value;
  return options;
}

TextTower::TextTower(const ModelConfig& c)
    : token_embedding(c.text.vocab_size, c.text.width),
      positional_embedding(Shape{c.text.context_length, c.text.width}),
      transformer(c.text.width, c.text.layers, c.text.heads, static_cast<std::int64_t>(c.text.width * c.text.mlp_ratio),
                  text_block_options(c)),
      ln_final(c.text.width, c.text.eps),
      causal(!c.text.no_causal_mask) {
  if (c.text.proj_bias) {
    text_projection_linear = Linear(c.text.width, c.embed_dim);
  } else {
    text_projection = Parameter(Shape{c.text.width, c.embed_dim});
  }
}

void TextTower::initialize(const Initializer& init) {
  const auto width = static_cast<double>(positional_embedding.value.size(1));
  const auto layers = static_cast<double>(transformer.resblocks.size());
  const double attention_std = 1.0 / std::sqrt(width);
  const double projection_std = attention_std / std::sqrt(2.0 * layers);
  init.normal(token_embedding.weight, "token_embedding.weight", 0.02);
  init.normal(positional_embedding, "positional_embedding", 0.01);
  for (std::size_t i = 0; i < transformer.resblocks.size(); ++i) {
    const std::string block = "transformer.resblocks." + std::to_string(i);
    ResidualAttentionBlock& b = transformer.resblocks[i];
    init.attention(b.attn, block + ".attn");
    init.linear(b.mlp.c_fc, block + ".mlp.c_fc");
    init.linear(b.mlp.c_proj, block + ".mlp.c_proj");
    init.normal(b.attn.in_proj_weight, block + ".attn.in_proj_weight", attention_std);
    init.normal(b.attn.out_proj.weight, block + ".attn.out_proj.weight", projection_std);
    init.normal(b.mlp.c_fc.weight, block + ".mlp.c_fc.weight", 1.0 / std::sqrt(2.0 * width));
    init.normal(b.mlp.c_proj.weight, block + ".mlp.c_proj.weight", projection_std);
  }
  if (text_projection_linear.has_value()) {
    init.normal(text_projection_linear->weight, "text_projection.weight", attention_std);
  } else {
    init.normal(text_projection, "text_projection", attention_std);
  }
}

Tensor TextTower::operator()(const TokenBatch& captions, const Context& context) const {
  const Scope scope("text");
  const std::int64_t context_length = positional_embedding.value.size(0);
  // (On a card nobody would look at the positions, and rows behind the table be read.)
  check(captions.offsets.longest() <= context_length, "text",
        "a caption of " + std::to_string(captions.offsets.longest()) + " tokens is longer than the context of " +
            std::to_string(context_length) + "; cut it first, as tokenize() does",
        {{"ids", captions.ids}, {"positional_embedding", positional_embedding.value}});
  // (Positions of another number would broadcast, and without rows to read every row would be read.)
  check(captions.ids.shape() == captions.positions.shape() && captions.last.defined() &&
            captions.last.count() == captions.offsets.sequences(),
        "text", "needs a position for each token and a row to read for each caption, as batch_captions() makes them",
        {{"ids", captions.ids}, {"positions", captions.positions}, {"last", captions.last}});
  const Tensor x = add(token_embedding(captions.ids), index_select(positional_embedding.value, 0, captions.positions));  // (N, W)
  const Scope inner("transformer");
  if (!causal) {
    check(x.size(0) == captions.captions() * context_length, "text",
          "a tower without causal mask reads padding too; pad every caption to the context length with batch_captions()",
          {{"ids", captions.ids}, {"positional_embedding", positional_embedding.value}});
  }
  // One query a caption in the last block. With a causal mask that needs captions that end with the row that is read.
  Tensor pooled;  // (S, W)
  if (pooled_last_block && (captions.packed || !causal)) {
    pooled = transformer(x, captions.offsets, causal, captions.last, context);
  } else {
    pooled = index_select(transformer(x, captions.offsets, causal, {}, context), 0, captions.last);
  }
  const Tensor normed = ln_final(pooled, context.activation_dtype());
  if (text_projection_linear.has_value()) return (*text_projection_linear)(normed, context).to(DType::f32);
  MatmulOptions product;
  product.compute = context.compute;
  product.out = DType::f32;
  return matmul(normed, text_projection.rounded_operand(context.compute), product);
}

void TextTower::visit(Visitor& v) {
  v("positional_embedding", positional_embedding);
  v("text_projection", text_projection);
  v("text_projection", text_projection_linear);
  v("transformer", transformer);
  v("token_embedding", token_embedding);
  v("ln_final", ln_final);
}

}  // namespace twinlens
