#include "twinlens/core/safetensors.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/src/safetensors_format.h"

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors is little endian; a big-endian reader has to swap");

constexpr std::uint64_t kLargestHeader = 100'000'000;

// Thrown while the JSON is read; becomes InvalidHeaderDeserialization.
struct BadHeader {
  std::string why;
};

// The header as JSON, refusing what a plain parser lets pass: keys that stand twice, and nesting deeper than the format has.
nlohmann::json parse_json(const std::string& header) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > 4) throw BadHeader{"values are nested too deeply"};
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw BadHeader{"the key " + parsed.dump() + " stands twice"};
    }
    return true;
  };
  try {
    return nlohmann::json::parse(header, watch);
  } catch (const nlohmann::json::exception& e) {
    throw BadHeader{std::string("it is not JSON: ") + e.what()};
  }
}

std::uint64_t unsigned_number(const nlohmann::json& value, const std::string& name) {
  if (!value.is_number_unsigned()) throw BadHeader{"'" + name + "' has " + value.dump() + " where a whole number of 0 or more is due"};
  return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& name, const nlohmann::json& info, bool& overflows) {
  SafetensorsEntry entry;
  entry.name = name;
  if (!info.is_object() || !info.contains("dtype") || !info.contains("shape") || !info.contains("data_offsets")) {
    throw BadHeader{"'" + name + "' lacks dtype, shape or data_offsets"};
  }
  const nlohmann::json &dtype = info["dtype"], &shape = info["shape"], &offsets = info["data_offsets"];
  if (!dtype.is_string() || !file_dtype(dtype.get_ref<const std::string&>())) {
    throw BadHeader{"'" + name + "' has the unknown dtype " + dtype.dump()};
  }
  if (!shape.is_array()) throw BadHeader{"the shape of '" + name + "' is not a list"};
  if (!offsets.is_array() || offsets.size() != 2) throw BadHeader{"the data_offsets of '" + name + "' are not two numbers"};
  entry.dtype = dtype.get<std::string>();
  for (const nlohmann::json& size : shape) {
    const std::uint64_t n = unsigned_number(size, name);
    overflows = overflows || n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    entry.shape.push_back(static_cast<std::int64_t>(n));
  }
  entry.begin = unsigned_number(offsets[0], name);
  entry.end = unsigned_number(offsets[1], name);
  return entry;
}

// Bits of all elements; false when their number does not fit 64 bits.
bool bits_of(const SafetensorsEntry& entry, std::uint64_t& bits) {
  std::uint64_t count = 1;
  for (const std::int64_t size : entry.shape) {
    if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(size), &count)) return false;
  }
  return !__builtin_mul_overflow(count, std::uint64_t{file_dtype(entry.dtype)->bits}, &bits);
}

}  // namespace

void SafetensorsFile::refuse(const std::string& kind, const std::string& why) const {
  throw FileError("not a valid safetensors file: " + kind + ": " + why + "; '" + file_.path() +
                  "'; it is damaged or of another format: fetch it or save it again");
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  if (file_.size() < 8) refuse("HeaderTooSmall", "it has " + std::to_string(file_.size()) + " bytes, less than the length of its header");
  std::uint64_t length = 0;
  file_.read_at(0, &length, 8);
  if (length > kLargestHeader) {
    refuse("HeaderTooLarge",
           "a header of " + std::to_string(length) + " bytes; no more than " + std::to_string(kLargestHeader) + " are allowed");
  }
  if (length > file_.size() - 8) {
    refuse("InvalidHeaderLength", "a header of " + std::to_string(length) + " bytes in a file of " + std::to_string(file_.size()));
  }
  data_begin_ = 8 + length;
  std::string header(static_cast<std::size_t>(length), '\0');
  file_.read_at(8, header.data(), header.size());
  if (!is_utf8(header)) refuse("InvalidHeader", "the header is not UTF-8");
  if (header.empty() || header.front() != '{') refuse("InvalidHeaderStart", "the header does not begin with {");
  try {
    parse(header);
  } catch (const BadHeader& bad) {
    refuse("InvalidHeaderDeserialization", bad.why);
  }
  validate();
}

void SafetensorsFile::parse(const std::string& header) {
  const nlohmann::json root = parse_json(header);
  bool overflows = false;
  for (const auto& [name, info] : root.items()) {
    if (name != "__metadata__") {
      entries_.push_back(parse_entry(name, info, overflows));
      continue;
    }
    if (info.is_null()) continue;
    if (!info.is_object()) throw BadHeader{"__metadata__ is not an object"};
    for (const auto& [key, value] : info.items()) {
      if (!value.is_string()) throw BadHeader{"__metadata__ has " + value.dump() + " at '" + key + "', not a string"};
      metadata_[key] = value.get<std::string>();
    }
  }
  if (overflows) refuse("ValidationOverflow", "a tensor has more than 2^63 - 1 elements in one dimension");
}

// The byte ranges, in order, start at 0, follow each other without hole or overlap, fit their shapes and end with the file.
void SafetensorsFile::validate() {
  std::sort(entries_.begin(), entries_.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  std::uint64_t reached = 0;
  for (const SafetensorsEntry& entry : entries_) {
    const std::string range = "bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end);
    if (entry.begin != reached || entry.end < entry.begin) {
      refuse("InvalidOffset", "'" + entry.name + "' has " + range + " where byte " + std::to_string(reached) + " is due");
    }
    std::uint64_t bits = 0;
    if (!bits_of(entry, bits)) refuse("ValidationOverflow", "the shape of '" + entry.name + "' has more than 2^64 bits");
    if (bits % 8 != 0) refuse("MisalignedSlice", "'" + entry.name + "' ends inside a byte");
    if (entry.end - entry.begin != bits / 8) {
      refuse("TensorInvalidInfo", "'" + entry.name + "' has " + range + " for a shape of " + std::to_string(bits / 8));
    }
    reached = entry.end;
  }
  if (reached != file_.size() - data_begin_) {
    refuse("MetadataIncompleteBuffer", "the tensors take " + std::to_string(reached) + " bytes and the file has " +
                                           std::to_string(file_.size() - data_begin_) + " for them");
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) index_[entries_[i].name] = i;
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) {
    throw FileError("no tensor '" + name + "' among the " + std::to_string(entries_.size()) + " of the file; '" + file_.path() +
                    "'; check that it is a checkpoint of the model you want");
  }
  return entries_[it->second];
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& e = entry(name);
  const auto unusable = [&](const std::string& why, const char* remedy) {
    throw FileError("tensor '" + name + "' cannot be read: " + why + "; '" + file_.path() + "'; " + remedy);
  };
  if (e.shape.size() > static_cast<std::size_t>(kMaxRank)) {
    unusable("it has " + std::to_string(e.shape.size()) + " dimensions", "save it with at most 6");
  }
  Shape shape;
  std::int64_t strides = 1;
  for (const std::int64_t size : e.shape) {
    shape.push_back(size);
    if (__builtin_mul_overflow(strides, std::max<std::int64_t>(size, 1), &strides)) {
      unusable("it has no elements but sizes beyond 2^63", "save it with smaller ones");
    }
  }
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8, DType::boolean}) {
    if (e.dtype != file_name_of(dtype)) continue;
    Tensor x = empty(shape, dtype);
    file_.read_at(data_begin_ + e.begin, x.raw(), static_cast<std::size_t>(e.end - e.begin));
    if (dtype == DType::boolean) {
      std::uint8_t* bytes = x.data<std::uint8_t>();
      for (std::int64_t i = 0; i < x.count(); ++i) bytes[i] = bytes[i] != 0;
    }
    return x;
  }
  unusable("its dtype is " + e.dtype, e.dtype == "F64" ? "read it with doubles()" : "save it as F32, F16, BF16, I64, I32, U8 or BOOL");
  return {};
}

std::vector<double> SafetensorsFile::doubles(const std::string& name) const {
  const SafetensorsEntry& e = entry(name);
  if (e.dtype != "F64") {
    throw FileError("tensor '" + name + "' is " + e.dtype + ", not F64; '" + file_.path() + "'; read it with tensor()");
  }
  std::vector<double> values(static_cast<std::size_t>((e.end - e.begin) / sizeof(double)));
  file_.read_at(data_begin_ + e.begin, values.data(), values.size() * sizeof(double));
  return values;
}

namespace {

struct Piece {
  const std::string* name;
  const Tensor* tensor;
  const char* dtype;
  int order;  // of its dtype in the file
  std::uint64_t bytes;
};

// Elements that lie one behind the other.
struct Run {
  const char *begin, *end;
  const Piece* piece;
};
bool begins_before(const Run& a, const Run& b) {
  return a.begin != b.begin ? std::less<>()(a.begin, b.begin) : std::less<>()(a.piece, b.piece);
}

// Two runs of different pieces that overlap; null without.
const Run* find_overlap(const std::vector<Run>& sorted, const Run*& other) {
  const Run* furthest = nullptr;
  for (const Run& run : sorted) {
    if (furthest != nullptr && run.piece != furthest->piece && std::less<>()(run.begin, furthest->end)) {
      other = &run;
      return furthest;
    }
    if (furthest == nullptr || std::less<>()(furthest->end, run.end)) furthest = &run;
  }
  return nullptr;
}

// The memory of a piece that has elements, as few runs as it has.
void add_runs(const Piece& piece, std::vector<Run>& out) {
  const Tensor& x = *piece.tensor;
  std::vector<std::pair<std::int64_t, std::int64_t>> dims;  // stride in bytes, size
  for (int d = 0; d < x.rank(); ++d) {
    if (x.size(d) > 1 && x.strides()[d] != 0) dims.emplace_back(x.strides()[d] * size_of(x.dtype()), x.size(d));
  }
  std::sort(dims.begin(), dims.end());
  std::int64_t length = size_of(x.dtype());
  std::size_t first = 0;
  for (; first < dims.size() && dims[first].first == length; ++first) length *= dims[first].second;
  dims.erase(dims.begin(), dims.begin() + static_cast<std::ptrdiff_t>(first));
  std::vector<std::int64_t> at(dims.size(), 0);
  const auto* begin = static_cast<const char*>(x.raw());
  while (true) {
    out.push_back({begin, begin + length, &piece});
    std::size_t d = 0;
    for (; d < dims.size(); ++d) {
      begin += dims[d].first;
      if (++at[d] < dims[d].second) break;
      begin -= dims[d].first * dims[d].second;
      at[d] = 0;
    }
    if (d == dims.size()) return;
  }
}

// Views that lie between each other, such as columns of one matrix, are written; only common elements are refused.
void refuse_shared_memory(const std::string& path, const std::vector<Piece>& pieces) {
  std::vector<Run> extents;
  for (const Piece& piece : pieces) {
    const Tensor& x = *piece.tensor;
    if (x.count() == 0) continue;
    std::int64_t last = 0;
    for (int d = 0; d < x.rank(); ++d) last += (x.size(d) - 1) * x.strides()[d];
    const auto* begin = static_cast<const char*>(x.raw());
    extents.push_back({begin, begin + (last + 1) * size_of(x.dtype()), &piece});
  }
  // Addresses of different devices never meet: they share one address space.
  std::sort(extents.begin(), extents.end(), begins_before);
  for (std::size_t i = 0; i < extents.size();) {
    // Those whose extents hang together: their runs are looked at.
    const char* end = extents[i].end;
    std::size_t next = i + 1;
    for (; next < extents.size() && std::less<>()(extents[next].begin, end); ++next) end = std::max(end, extents[next].end, std::less<>());
    std::vector<Run> runs;
    for (std::size_t k = i; next - i > 1 && k < next; ++k) add_runs(*extents[k].piece, runs);
    std::sort(runs.begin(), runs.end(), begins_before);
    const Run* b = nullptr;
    if (const Run* a = find_overlap(runs, b); a != nullptr) {
      throw FileError("tensors '" + *a->piece->name + "' and '" + *b->piece->name + "' share memory; '" + path +
                      "'; leave one out, or clone() it if two copies are meant");
    }
    i = next;
  }
}

std::string header_of(const std::vector<Piece>& pieces, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const Piece& piece : pieces) {
    const Shape& shape = piece.tensor->shape();
    nlohmann::ordered_json info;
    info["dtype"] = piece.dtype;
    info["shape"] = std::vector<std::int64_t>(shape.begin(), shape.end());
    info["data_offsets"] = {offset, offset + piece.bytes};
    header[*piece.name] = std::move(info);
    offset += piece.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

std::map<std::string, Tensor> read_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  std::map<std::string, Tensor> tensors;
  for (const SafetensorsEntry& entry : file.entries()) tensors.emplace(entry.name, file.tensor(entry.name));
  return tensors;
}

void write_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<Piece> pieces;
  for (const auto& [name, tensor] : tensors) {
    if (name == "__metadata__" || !is_utf8(name)) {
      throw FileError("a tensor cannot be named '" + name + "'; '" + path + "'; use UTF-8, and not __metadata__");
    }
    if (!tensor.defined()) throw FileError("tensor '" + name + "' is absent; '" + path + "'; leave it out, or give one with elements");
    const char* dtype = file_name_of(tensor.dtype());
    pieces.push_back(
        {&name, &tensor, dtype, file_dtype(dtype)->order, static_cast<std::uint64_t>(tensor.count() * size_of(tensor.dtype()))});
  }
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) throw FileError("metadata is not UTF-8 at '" + key + "'; '" + path + "'; use UTF-8");
  }
  refuse_shared_memory(path, pieces);
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.order > b.order; });

  AtomicFile file(path);
  const std::string header = header_of(pieces, metadata);
  const std::uint64_t length = header.size();
  file.write(&length, 8);
  file.write(header.data(), header.size());
  const NoGrad guard;
  for (const Piece& piece : pieces) {
    const Tensor host = dense(piece.tensor->to(kCpu));
    file.write(host.raw(), static_cast<std::size_t>(piece.bytes));
  }
  file.commit();
}

}  // namespace twinlens
