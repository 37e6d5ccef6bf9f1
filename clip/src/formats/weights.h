#pragma once
// The tensors of one or several checkpoint files, whatever their container: safetensors, or torch's zip.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "clip/src/formats/torch_archive.h"

#include "twinlens/core/safetensors.h"

namespace twinlens {

class WeightFiles {
 public:
  // Looks at the headers. A file of neither kind is a FileError.
  explicit WeightFiles(const std::vector<std::string>& paths);

  // Names with shapes, of all files.
  const std::map<std::string, std::vector<std::int64_t>>& shapes() const { return shapes_; }
  std::set<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // of safetensors
  bool is_script() const { return is_script_; }
  // Throws FileError for a name that is not there or has a dtype without Tensor.
  std::map<std::string, Tensor> read(const std::set<std::string>& names) const;

 private:
  struct File {
    std::unique_ptr<SafetensorsFile> safetensors;
    std::unique_ptr<TorchArchive> torch;
  };
  std::vector<File> files_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;
  std::map<std::string, std::size_t> file_of_;
  std::map<std::string, std::string> metadata_;
  bool is_script_ = false;
};

}  // namespace twinlens
