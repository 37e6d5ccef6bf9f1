#include "clip/src/formats/weights.h"

#include <cstring>

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

enum class Container : std::uint8_t { safetensors, zip };

Container container_of(const std::string& path) {
  const InputFile file(path);
  char start[12] = {};
  file.read_at(0, start, static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), sizeof start)));
  if (std::memcmp(start, "PK\003\004", 4) == 0) return Container::zip;
  if (std::memcmp(start, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", 8) == 0) {
    throw FileError("a checkpoint of PyTorch before 1.6 cannot be read; '" + path +
                    "'; load it in PyTorch and save it again with torch.save");
  }
  if (std::memcmp(start, "version http", 12) == 0) {
    throw FileError("the weights are not there yet: the file is a pointer of Git LFS; '" + path +
                    "'; git lfs pull in its repository fetches them");
  }
  return Container::safetensors;
}

}  // namespace

WeightFiles::WeightFiles(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    File file;
    const std::size_t index = files_.size();
    if (container_of(path) == Container::zip) {
      file.torch = std::make_unique<TorchArchive>(path);
      is_script_ = is_script_ || file.torch->is_script();
      for (const auto& [name, entry] : file.torch->entries()) {
        shapes_[name] = entry.shape;
        file_of_[name] = index;
      }
    } else {
      file.safetensors = std::make_unique<SafetensorsFile>(path);
      for (const SafetensorsEntry& entry : file.safetensors->entries()) {
        shapes_[entry.name] = entry.shape;
        file_of_[entry.name] = index;
      }
      metadata_.insert(file.safetensors->metadata().begin(), file.safetensors->metadata().end());
    }
    files_.push_back(std::move(file));
  }
}

std::set<std::string> WeightFiles::names() const {
  std::set<std::string> out;
  for (const auto& [name, shape] : shapes_) out.insert(name);
  return out;
}

std::map<std::string, Tensor> WeightFiles::read(const std::set<std::string>& names) const {
  std::vector<std::set<std::string>> wanted(files_.size());
  for (const std::string& name : names) {
    const auto it = file_of_.find(name);
    wanted[it == file_of_.end() ? 0 : it->second].insert(name);  // the first file says that it has no such tensor
  }
  std::map<std::string, Tensor> out;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i].torch != nullptr) {
      out.merge(files_[i].torch->read(wanted[i]));
    } else {
      for (const std::string& name : wanted[i]) out.emplace(name, files_[i].safetensors->tensor(name));
    }
  }
  return out;
}

}  // namespace twinlens
