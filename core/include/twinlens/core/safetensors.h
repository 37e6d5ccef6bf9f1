#pragma once
// safetensors: the checkpoint format of the CLIP world. 8 bytes of header length, a JSON header, then the elements of all tensors, little
// endian and row-major. https://github.com/huggingface/safetensors
//
// A file is checked in full when it is opened: nothing that passes can make a later read leave the file. What is refused is a FileError
// with the format's own name of the rule (HeaderTooSmall, HeaderTooLarge, InvalidHeaderLength, InvalidHeader, InvalidHeaderStart,
// InvalidHeaderDeserialization, InvalidOffset, TensorInvalidInfo, MetadataIncompleteBuffer, ValidationOverflow, MisalignedSlice), the file
// and a remedy.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "twinlens/core/file.h"
#include "twinlens/core/tensor.h"

namespace twinlens {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;                 // as the format calls it: "F32", "BF16", "F8_E4M3"
  std::vector<std::int64_t> shape;   // of any rank
  std::uint64_t begin = 0, end = 0;  // bytes after the header
};

// An open file. Tensors are read when they are asked for, from any number of threads.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in the order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return index_.count(name) != 0; }
  const SafetensorsEntry& entry(const std::string& name) const;

  // F32, F16, BF16, I64, I32, U8 and BOOL as they are, on the CPU. Other dtypes, and ranks above kMaxRank, are a FileError.
  Tensor tensor(const std::string& name) const;
  // The elements of an F64 tensor, for which there is no Tensor.
  std::vector<double> doubles(const std::string& name) const;

 private:
  [[noreturn]] void refuse(const std::string& kind, const std::string& why) const;
  void parse(const std::string& header);
  void validate();

  InputFile file_;
  std::uint64_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// Every tensor of a file.
std::map<std::string, Tensor> read_safetensors(const std::string& path);

// Writes the tensors (any device and layout) in the order that every reader finds aligned, by way of AtomicFile. `format: pt` is what
// Hugging Face's loaders look for. Tensors with elements in common are refused: the file cannot say so, and a reader would get two copies.
void write_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace twinlens
