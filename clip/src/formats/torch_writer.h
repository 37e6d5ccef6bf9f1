#pragma once
// Writes what torch.save writes of a state dict: a zip of stored members, one of them a pickle. torch.load opens it, with weights_only too,
// and so do OpenAI's clip, open_clip and transformers.

#include <map>
#include <string>

#include "twinlens/core/tensor.h"

namespace twinlens {

// Tensors on the CPU, of any dtype that TorchArchive reads. Replaces or creates `path` atomically; beside the tensors it takes no memory.
// Throws FileError when it cannot be written.
void write_torch(const std::string& path, const std::map<std::string, Tensor>& tensors);

}  // namespace twinlens
