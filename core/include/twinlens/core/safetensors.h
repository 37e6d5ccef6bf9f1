#pragma once
// safetensors files (https://github.com/huggingface/safetensors): 8 bytes of little-endian header length, a JSON header, raw data.
// Reading enforces every rule of the format: header of at most 100,000,000 bytes that starts with `{`, no key twice, offsets that tile the
// data without holes or overlaps and end with the file, sizes that fit shapes without overflow. Errors are FileError and begin with the
// rule's name in the reference implementation (HeaderTooLarge, InvalidOffset, ...).

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

struct DoubleArray {
  Shape shape;
  std::vector<double> values;
};

struct SafetensorsFile {
  std::vector<std::pair<std::string, Tensor>> tensors;  // F32 BF16 F16 I64 I32 U8 BOOL, in the order of their data, on the CPU
  std::map<std::string, DoubleArray> doubles;           // F64, which Tensor does not have
  std::map<std::string, std::string> metadata;
};

// Throws FileError when the file is missing, breaks a rule, or has a tensor of a dtype that is not listed above.
SafetensorsFile read_safetensors(const std::string& path);

// Orders tensors by descending element size, then name; pads the header to 8 bytes; writes atomically (twinlens/core/file.h). Metadata gets
// format = "pt", which Hugging Face loaders expect. Throws FileError; the old file is then intact.
void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace twinlens
