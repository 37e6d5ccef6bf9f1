#include "clip/src/formats/torch_archive.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <array>
#include <cstring>
#include <memory>
#include <optional>

#include "clip/src/formats/pickle.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Kind = PickleValue::Kind;

constexpr std::uint64_t kLargestPickle = 64U << 20U;
constexpr int kDeepest = 64;                 // levels of modules
constexpr std::uint64_t kSmall = 1U << 20U;  // bytes that a file of any size may become
constexpr std::size_t kLongestName = 500, kMostTensors = 100'000;

struct Type {
  const char *storage, *dtype;
  std::int64_t bytes;
  std::optional<DType> own;
};
constexpr std::array<Type, 10> kTypes = {{{"FloatStorage", "F32", 4, DType::f32},
                                          {"HalfStorage", "F16", 2, DType::f16},
                                          {"BFloat16Storage", "BF16", 2, DType::bf16},
                                          {"DoubleStorage", "F64", 8, {}},
                                          {"LongStorage", "I64", 8, DType::i64},
                                          {"IntStorage", "I32", 4, DType::i32},
                                          {"ShortStorage", "I16", 2, {}},
                                          {"CharStorage", "I8", 1, {}},
                                          {"ByteStorage", "U8", 1, DType::u8},
                                          {"BoolStorage", "BOOL", 1, DType::boolean}}};

const Type& type_of(const std::string& dtype) {
  return *std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& t) { return dtype == t.dtype; });
}

// Tensors below a dict or module by their dotted names.
class Flattener {
 public:
  explicit Flattener(const Pickle& pickle) : pickle_(pickle) {}

  std::map<std::string, PickleRef> of(PickleRef root) {
    add("", root, 0);
    return std::move(found_);
  }

 private:
  void add(const std::string& name, PickleRef at, int depth) {
    const PickleValue& v = pickle_[at];
    if (name.size() > kLongestName || found_.size() > kMostTensors) return;
    if (v.kind == Kind::tensor) {
      found_[name] = at;
      return;
    }
    if ((v.kind != Kind::dict && v.kind != Kind::object) || depth == kDeepest) return;
    // Modules and dicts form a tree; a value that is met again is a cycle or an alias.
    if (!seen_.insert(at).second) return;
    for (std::size_t i = 0; i + 1 < v.items.size(); i += 2) {
      const PickleValue& key = pickle_[v.items[i]];
      if (key.kind == Kind::text) add(name.empty() ? key.text : name + "." + key.text, v.items[i + 1], depth + 1);
    }
  }
  const Pickle& pickle_;
  std::map<std::string, PickleRef> found_;
  std::set<PickleRef> seen_;
};

// The dict of a training checkpoint that holds the weights.
PickleRef state_dict_of(const Pickle& pickle) {
  const PickleValue& root = pickle[pickle.root];
  if (root.kind != Kind::dict) return pickle.root;
  for (const char* wanted : {"state_dict", "model_state_dict", "model", "module"}) {
    for (std::size_t i = 0; i + 1 < root.items.size(); i += 2) {
      const PickleValue &key = pickle[root.items[i]], &value = pickle[root.items[i + 1]];
      if (key.kind == Kind::text && key.text == wanted && (value.kind == Kind::dict || value.kind == Kind::object))
        return root.items[i + 1];
    }
  }
  return pickle.root;
}

void drop_prefix(std::map<std::string, TorchArchive::Entry>& entries, const std::string& prefix) {
  const auto has = [&](const auto& e) { return e.first.rfind(prefix, 0) == 0; };
  if (entries.empty() || !std::all_of(entries.begin(), entries.end(), has)) return;
  std::map<std::string, TorchArchive::Entry> out;
  for (auto& [name, entry] : entries) out.emplace(name.substr(prefix.size()), std::move(entry));
  entries = std::move(out);
}

}  // namespace

void TorchArchive::refuse(const std::string& why) const {
  throw FileError("not a checkpoint that can be read: " + why + "; '" + path_ + "'; fetch it again, or save it again with torch.save");
}

void TorchArchive::for_each_member(
    const std::function<bool(const std::string&, std::uint64_t, const std::function<void(void*)>&)>& visit) const {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_zip_seekable(reader.get());
  const auto reason = [&] {
    const char* text = archive_error_string(reader.get());
    return std::string(text == nullptr ? "no reason given" : text);
  };
  if (archive_read_open_filename(reader.get(), path_.c_str(), 1 << 20) != ARCHIVE_OK) refuse("its zip is damaged: " + reason());
  archive_entry* entry = nullptr;
  while (true) {
    const int status = archive_read_next_header(reader.get(), &entry);
    if (status == ARCHIVE_EOF) return;
    if (status < ARCHIVE_WARN) refuse("its zip is damaged: " + reason());
    const char* name = archive_entry_pathname(entry);
    if (name == nullptr || archive_entry_filetype(entry) != AE_IFREG) continue;
    const char* slash = std::strchr(name, '/');
    const std::int64_t size = archive_entry_size(entry);
    const std::string member = slash == nullptr ? name : slash + 1;
    // torch never compresses, so a member cannot be longer than the file.
    if (archive_entry_size_is_set(entry) == 0 || size < 0 || static_cast<std::uint64_t>(size) > file_size_) {
      refuse("the member '" + member.substr(0, 100) + "' says that it is longer than the whole file");
    }
    const auto read = [&](void* to) {
      auto* p = static_cast<char*>(to);
      std::int64_t done = 0;
      while (done < size) {
        const la_ssize_t n = archive_read_data(reader.get(), p + done, static_cast<std::size_t>(size - done));
        if (n <= 0) refuse("the member '" + member.substr(0, 100) + "' is damaged or cut off: " + (n < 0 ? reason() : "too short"));
        done += n;
      }
      char more = 0;
      if (archive_read_data(reader.get(), &more, 1) != 0) refuse("the member '" + member.substr(0, 100) + "' is damaged: " + reason());
    };
    if (!visit(member, static_cast<std::uint64_t>(size), read)) return;
  }
}

TorchArchive::TorchArchive(const std::string& path) : path_(path), file_size_(InputFile(path).size()) {
  std::string pickle, byteorder;
  bool found = false;
  for_each_member([&](const std::string& name, std::uint64_t size, const std::function<void(void*)>& read) {
    const bool wanted = name == "data.pkl", order = name == "byteorder";
    if (name == "constants.pkl") is_script_ = true;
    if (!wanted && !order) return true;
    if (size > (wanted ? kLargestPickle : 16)) refuse("its " + name + " has " + std::to_string(size) + " bytes");
    if (wanted && found) refuse("it has two members data.pkl");
    found = found || wanted;
    std::string& to = wanted ? pickle : byteorder;
    to.resize(static_cast<std::size_t>(size));
    read(to.data());
    return true;
  });
  if (!found) refuse("it is a zip without data.pkl");
  if (!byteorder.empty() && byteorder != "little") refuse("its numbers are " + byteorder + " endian");
  const Pickle values = read_pickle(pickle, "'" + path_ + "', data.pkl");
  const std::map<std::string, PickleRef> tensors = Flattener(values).of(state_dict_of(values));
  if (tensors.size() > kMostTensors) refuse("it has more than " + std::to_string(kMostTensors) + " tensors");
  for (const auto& [name, at] : tensors) {
    const PickleValue &tensor = values[at], &storage = values[tensor.items[0]];
    Entry entry;
    for (const Type& type : kTypes) {
      if (storage.text == type.storage) entry.dtype = type.dtype;
    }
    entry.shape = tensor.shape;
    entry.strides = tensor.strides;
    entry.offset = tensor.integer;
    entry.storage = values[storage.items[0]].text;
    entry.storage_count = storage.integer;
    // The last element lies in the storage. Strides of 0 repeat elements (expand): how often, read() looks at.
    std::int64_t count = 1, last = entry.offset;
    bool fits = true, empty = false;
    for (std::size_t d = 0; d < entry.shape.size(); ++d) {
      std::int64_t span = 0;
      empty = empty || entry.shape[d] == 0;
      fits = fits && !__builtin_mul_overflow(count, std::max<std::int64_t>(1, entry.shape[d]), &count) &&
             !__builtin_mul_overflow(std::max<std::int64_t>(0, entry.shape[d] - 1), entry.strides[d], &span) &&
             !__builtin_add_overflow(last, span, &last);
    }
    if (!fits || (!empty && last >= entry.storage_count)) {
      refuse("the tensor '" + name.substr(0, 200) + "' leaves its storage");
    }
    entries_.emplace(name, std::move(entry));
  }
  for (const char* prefix : {"module.", "_orig_mod.", "module."}) drop_prefix(entries_, prefix);
}

Tensor TorchArchive::take_tensor(const Entry& entry, const Tensor& storage) const {
  const Type& type = type_of(entry.dtype);
  Shape shape;
  for (const std::int64_t size : entry.shape) shape.push_back(size);
  Tensor out = twinlens::empty(shape, *type.own);
  const auto* from = static_cast<const char*>(storage.raw());
  auto* to = static_cast<char*>(out.raw());
  // Row-major counting over the result, whatever the strides of the source.
  std::vector<std::int64_t> at(entry.shape.size(), 0);
  std::int64_t source = entry.offset;
  std::int64_t expected = 1;
  bool dense = true;
  for (std::size_t d = at.size(); d-- > 0;) {
    dense = dense && (entry.shape[d] <= 1 || entry.strides[d] == expected);
    expected *= entry.shape[d];
  }
  if (dense) {
    std::memcpy(to, from + source * type.bytes, static_cast<std::size_t>(out.count() * type.bytes));
    return out;
  }
  for (std::int64_t i = 0; i < out.count(); ++i) {
    std::memcpy(to + i * type.bytes, from + source * type.bytes, static_cast<std::size_t>(type.bytes));
    for (std::size_t d = at.size(); d-- > 0;) {
      source += entry.strides[d];
      if (++at[d] < entry.shape[d]) break;
      source -= entry.strides[d] * entry.shape[d];
      at[d] = 0;
    }
  }
  return out;
}

std::map<std::string, Tensor> TorchArchive::read(const std::set<std::string>& names) const {
  std::map<std::string, std::vector<std::string>> of_storage;  // member -> names
  std::uint64_t bytes_wanted = 0;
  for (const std::string& name : names) {
    const auto it = entries_.find(name);
    if (it == entries_.end()) refuse("it has no tensor '" + name + "'");
    if (!type_of(it->second.dtype).own.has_value())
      refuse("the tensor '" + name + "' is " + it->second.dtype + "; save it as F32, F16 or BF16");
    if (it->second.shape.size() > static_cast<std::size_t>(kMaxRank)) refuse("the tensor '" + name + "' has more than 6 dimensions");
    of_storage["data/" + it->second.storage].push_back(name);
    std::uint64_t elements = 1;
    for (const std::int64_t size : it->second.shape) elements *= static_cast<std::uint64_t>(size);
    // Tensors may share a storage or repeat elements, but not so often that a small file fills the memory.
    const std::uint64_t most = 2 * file_size_ + kSmall;
    bytes_wanted += std::min(elements, most + 1) * static_cast<std::uint64_t>(type_of(it->second.dtype).bytes);
    if (bytes_wanted > most) refuse("its tensors are more than twice as large as the file, from '" + name.substr(0, 200) + "' on");
  }
  std::map<std::string, Tensor> out;
  for_each_member([&](const std::string& member, std::uint64_t size, const std::function<void(void*)>& read) {
    const auto it = of_storage.find(member);
    if (it == of_storage.end()) return true;
    const Entry& first = entries_.at(it->second.front());
    const std::int64_t bytes = type_of(first.dtype).bytes;
    if (first.storage_count > static_cast<std::int64_t>(file_size_) || static_cast<std::uint64_t>(first.storage_count * bytes) != size) {
      refuse("the member '" + member.substr(0, 100) + "' has " + std::to_string(size) + " bytes for " +
             std::to_string(first.storage_count) + " elements of " + first.dtype);
    }
    const Tensor storage = empty({static_cast<std::int64_t>(size)}, DType::u8);
    read(storage.raw());
    for (const std::string& name : it->second) {
      const Entry& e = entries_.at(name);
      if (e.dtype != first.dtype || e.storage_count != first.storage_count)
        refuse("the tensor '" + name + "' contradicts another on its storage");
      Tensor x = take_tensor(e, storage);
      if (e.dtype == std::string("BOOL")) {
        for (std::int64_t i = 0; i < x.count(); ++i) static_cast<std::uint8_t*>(x.raw())[i] = static_cast<std::uint8_t*>(x.raw())[i] != 0;
      }
      out[name] = std::move(x);
    }
    of_storage.erase(it);  // a second member of this name is not read
    return !of_storage.empty();
  });
  if (!of_storage.empty()) refuse("the member '" + of_storage.begin()->first.substr(0, 100) + "' is missing");
  return out;
}

}  // namespace twinlens
