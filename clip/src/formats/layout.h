#pragma once
// The names and shapes under which the CLIP world stores a model. Inside, parameters have one set of names whatever the model (OpenAI's,
// which are also open_clip's for class CLIP); a layout says for each group of them how it is stored. All layouts hold the same numbers, so
// that going from one to another and back gives the same bits.

#include <set>
#include <string>
#include <vector>

#include "twinlens/clip/config.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/nn/module.h"

namespace twinlens {

// Tensors that are one on either side or both: own, joined along dimension 0, equals theirs, joined along dimension 0.
struct LayoutPiece {
  struct Part {
    std::string name;
    int share = 1;  // of dimension 0, where several parts share it
  };
  std::vector<Part> own, theirs;
  bool transposed = false;   // theirs is the transpose
  bool leading_one = false;  // theirs has one more dimension, of size 1, in front
};

// Names of all parameters (not buffers) of a model of this configuration, in the order of its visit, and of its running statistics.
std::vector<std::string> parameter_names(const ModelConfig& config);
std::vector<std::string> buffer_names(const ModelConfig& config);

// Throws ConfigError, naming the reason, when the layout cannot hold such a model.
std::vector<LayoutPiece> layout_pieces(Layout layout, const ModelConfig& config);
// Throws ConfigError for what the layout's own config cannot say of a model whose weights have their place: its tokenizer.
void check_writable(Layout layout, const ModelConfig& config);

// Tensors of a file that mean nothing to the model: sizes that OpenAI stores, PyTorch's batch counts, HF's position_ids.
bool is_left_out(const std::string& name);

// By the names of a file; of OpenAI's and open_clip's names, which are the same, OpenAI's only when its extra tensors are there.
Layout detect_layout(const std::set<std::string>& names, const std::string& source);

// Tensors of a file, in its layout, as the model names them; and back. dtypes stay. Throws ConfigError naming missing tensors.
StateDict from_layout(const std::vector<LayoutPiece>& pieces, const StateDict& theirs);
StateDict to_layout(const std::vector<LayoutPiece>& pieces, const StateDict& own);

}  // namespace twinlens
