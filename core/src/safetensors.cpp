#include "twinlens/core/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::uint64_t kMaxHeader = 100'000'000;

struct NamedDType {
  const char* name;
  std::int64_t size;
  std::optional<DType> dtype;  // none: F64, which becomes doubles
};
constexpr NamedDType kDTypes[] = {{"F32", 4, DType::f32}, {"BF16", 2, DType::bf16}, {"F16", 2, DType::f16},      {"I64", 8, DType::i64},
                                  {"I32", 4, DType::i32}, {"U8", 1, DType::u8},     {"BOOL", 1, DType::boolean}, {"F64", 8, std::nullopt}};

struct Entry {
  std::string name;
  const NamedDType* dtype = nullptr;
  Shape shape;
  std::uint64_t begin = 0, end = 0;
};

class Parser {
 public:
  Parser(const std::string& path, const std::string& bytes) : path_(path), bytes_(bytes) {}

  SafetensorsFile parse() {
    const std::uint64_t header = header_size();
    const Json json = parse_header(header);
    SafetensorsFile file;
    std::vector<Entry> entries;
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__") {
        read_metadata(value, file);
      } else {
        entries.push_back(read_entry(name, value));
      }
    }
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
    std::uint64_t expected = 0;
    for (const Entry& e : entries) {
      if (e.begin != expected || e.end < e.begin) fail("InvalidOffset", "tensor '" + e.name + "' does not begin where the one before ends");
      check_size(e);
      expected = e.end;
    }
    const std::uint64_t data = 8 + header;
    if (bytes_.size() - data != expected) {
      fail("MetadataIncompleteBuffer", "the header names " + std::to_string(expected) + " bytes of data and the file has " + std::to_string(bytes_.size() - data));
    }
    for (const Entry& e : entries) read_data(e, bytes_.data() + data + e.begin, file);
    return file;
  }

 private:
  [[noreturn]] void fail(const char* rule, const std::string& what) const {
    throw FileError(std::string(rule) + ": " + what + "; " + path_ + "; the file is damaged or not safetensors, get it again");
  }

  std::uint64_t header_size() const {
    if (bytes_.size() < 8) fail("HeaderTooSmall", "the file has " + std::to_string(bytes_.size()) + " bytes");
    std::uint64_t n = 0;
    for (int i = 7; i >= 0; --i) n = (n << 8) | static_cast<std::uint8_t>(bytes_[static_cast<std::size_t>(i)]);
    if (n > kMaxHeader) fail("HeaderTooLarge", "a header of " + std::to_string(n) + " bytes");
    if (n > bytes_.size() - 8) fail("InvalidHeaderLength", "a header of " + std::to_string(n) + " bytes does not fit the file");
    return n;
  }

  Json parse_header(std::uint64_t n) const {
    const std::string text = bytes_.substr(8, n);
    if (text.empty() || text[0] != '{') fail("InvalidHeaderStart", "the header does not start with {");
    // nlohmann keeps the last of equal keys, so they are watched for while parsing.
    std::vector<std::set<std::string>> open;
    std::string twice;
    const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
      if (event == Json::parse_event_t::object_start) open.emplace_back();
      if (event == Json::parse_event_t::object_end) open.pop_back();
      if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second) twice = parsed.get<std::string>();
      return true;
    };
    Json json;
    try {
      json = Json::parse(text, watch);
    } catch (const Json::exception& e) {
      fail("InvalidHeaderDeserialization", e.what());
    }
    if (!twice.empty()) fail("InvalidHeaderDeserialization", "key '" + twice + "' stands twice");
    return json;
  }

  void read_metadata(const Json& value, SafetensorsFile& file) const {
    if (!value.is_object()) fail("InvalidHeaderDeserialization", "__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("InvalidHeaderDeserialization", "__metadata__ '" + key + "' is not a string");
      file.metadata[key] = text.get<std::string>();
    }
  }

  Entry read_entry(const std::string& name, const Json& value) const {
    Entry e;
    e.name = name;
    try {
      const std::string dtype = value.at("dtype");
      const auto it = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const NamedDType& t) { return dtype == t.name; });
      if (it == std::end(kDTypes)) {
        throw FileError("tensor '" + name + "' has dtype " + dtype + ", which twinlens does not read; " + path_ + "; convert it to F32, BF16 or F16");
      }
      e.dtype = it;
      const Json& shape = value.at("shape");
      if (!shape.is_array() || shape.size() > kMaxRank) fail("TensorInvalidInfo", "tensor '" + name + "' has shape " + shape.dump());
      std::uint64_t count = 1;
      for (const Json& size : shape) {
        const auto n = size.get<std::uint64_t>();
        if (!size.is_number_unsigned()) fail("InvalidHeaderDeserialization", "tensor '" + name + "' has shape " + shape.dump());
        if (n != 0 && count > (std::uint64_t{1} << 62) / n) fail("ValidationOverflow", "tensor '" + name + "' has shape " + shape.dump());
        count *= n;
        e.shape.push_back(static_cast<std::int64_t>(n));
      }
      const Json& offsets = value.at("data_offsets");
      if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
        fail("InvalidHeaderDeserialization", "tensor '" + name + "' has data_offsets " + offsets.dump());
      }
      e.begin = offsets[0];
      e.end = offsets[1];
    } catch (const Json::exception& error) {
      fail("InvalidHeaderDeserialization", "tensor '" + name + "': " + error.what());
    }
    return e;
  }

  void check_size(const Entry& e) const {
    const auto count = static_cast<std::uint64_t>(e.shape.count());
    const auto size = static_cast<std::uint64_t>(e.dtype->size);
    if (count > (std::uint64_t{1} << 62) / size) fail("ValidationOverflow", "tensor '" + e.name + "' has shape " + to_string(e.shape));
    if (e.end - e.begin != count * size) {
      fail("TensorInvalidInfo", "tensor '" + e.name + "' " + to_string(e.shape) + " " + e.dtype->name + " needs " + std::to_string(count * size) + " bytes and has " +
                                    std::to_string(e.end - e.begin));
    }
  }

  static void read_data(const Entry& e, const char* data, SafetensorsFile& file) {
    const std::size_t bytes = e.end - e.begin;
    if (!e.dtype->dtype.has_value()) {
      DoubleArray array{e.shape, std::vector<double>(bytes / sizeof(double))};
      if (bytes > 0) std::memcpy(array.values.data(), data, bytes);
      file.doubles[e.name] = std::move(array);
      return;
    }
    Tensor x = empty(e.shape, *e.dtype->dtype);
    if (bytes > 0) std::memcpy(x.raw(), data, bytes);
    file.tensors.emplace_back(e.name, std::move(x));
  }

  const std::string& path_;
  const std::string& bytes_;
};

const char* format_name(DType dtype) {
  for (const NamedDType& t : kDTypes) {
    if (t.dtype == dtype) return t.name;
  }
  return "?";
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) { return Parser(path, read_file(path)).parse(); }

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors, const std::map<std::string, std::string>& metadata) {
  const NoGrad guard;
  std::vector<std::pair<std::string, Tensor>> sorted = tensors;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    const std::int64_t sa = size_of(a.second.dtype()), sb = size_of(b.second.dtype());
    return sa != sb ? sa > sb : a.first < b.first;
  });
  Json header;
  Json& about = header["__metadata__"] = Json::object();
  about["format"] = "pt";
  for (const auto& [key, value] : metadata) about[key] = value;
  std::int64_t offset = 0;
  for (const auto& [name, x] : sorted) {
    if (header.contains(name)) throw FileError("two tensors are named '" + name + "'; " + path + "; give each its own name");
    const std::int64_t bytes = x.count() * size_of(x.dtype());
    Json shape = Json::array();
    for (const std::int64_t size : x.shape()) shape.push_back(size);
    header[name] = {{"dtype", format_name(x.dtype())}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  atomic_write(path, [&](const Sink& sink) {
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(static_cast<std::uint64_t>(text.size()) >> (8 * i));
    sink(length, 8);
    sink(text.data(), text.size());
    for (const auto& [name, x] : sorted) {
      const Tensor host = dense(x.to(kCpu));
      sink(host.raw(), static_cast<std::size_t>(host.count() * size_of(host.dtype())));
    }
  });
}

}  // namespace twinlens
