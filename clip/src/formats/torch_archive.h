#pragma once
// Checkpoints of torch.save (.pt, .pth, .bin) and TorchScript archives: a zip of stored members, one of them a pickle (pickle.h) that says
// which tensors lie where in the others. Nothing in it is executed, no member's name is used as a path. Tensors that share or repeat
// elements (expand) are written out, all that are read to twice the file's length and 1 MiB at most. Whatever does not fit is a FileError.

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

class TorchArchive {
 public:
  struct Entry {
    std::string dtype;  // as safetensors calls it
    std::vector<std::int64_t> shape;
    std::string storage;  // member "data/STORAGE"
    std::int64_t storage_count = 0, offset = 0;
    std::vector<std::int64_t> strides;
  };

  explicit TorchArchive(const std::string& path);

  bool is_script() const { return is_script_; }  // a TorchScript module
  // Tensors by name: of the state dict, which may lie below "state_dict", "model" and the like; the prefixes "module." and "_orig_mod." of
  // wrapped models are dropped. Of a module, its attributes.
  const std::map<std::string, Entry>& entries() const { return entries_; }

  // Reads these tensors in one pass. F32, F16, BF16, I64, I32, U8, BOOL.
  std::map<std::string, Tensor> read(const std::set<std::string>& names) const;

 private:
  [[noreturn]] void refuse(const std::string& why) const;
  // Calls `visit(name below the folder, size, read)` for every member, in file order, until it returns false.
  void for_each_member(const std::function<bool(const std::string&, std::uint64_t, const std::function<void(void*)>&)>& visit) const;
  void add_tensors();
  Tensor take_tensor(const Entry& entry, const Tensor& storage) const;

  std::string path_;
  std::uint64_t file_size_ = 0;
  bool is_script_ = false;
  std::map<std::string, Entry> entries_;
};

}  // namespace twinlens
