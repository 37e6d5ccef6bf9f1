#pragma once
// A closed subset of Python's pickle, enough for what torch.save and TorchScript write about tensors. Nothing is ever executed: an opcode
// outside the subset, and a global that is not one of those named in pickle.cpp, is a FileError that names it. Protocols 2 to 5.
//
// Values lie in one list and refer to each other by place, so that a pickle with deep nesting or cycles costs no stack; their number is
// limited.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace twinlens {

using PickleRef = std::uint32_t;

struct PickleValue {
  enum class Kind : std::uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, object, storage, tensor };
  Kind kind = Kind::none;
  std::int64_t integer = 0;      // also of boolean
  double real = 0.0;             // of real
  std::string text;              // of text; of global "module name"; of object its class
  std::vector<PickleRef> items;  // of tuple, list; of dict key, value, key, value, ...; of object its attributes in the same way

  // storage: text = class ("FloatStorage"), items = {key}, integer = elements
  // tensor: items = {storage}, integer = offset in elements
  std::vector<std::int64_t> shape, strides;  // of tensor; strides in elements
};

struct Pickle {
  std::vector<PickleValue> values;
  PickleRef root = 0;
  const PickleValue& operator[](PickleRef i) const { return values[i]; }
};

// `source` is named in errors.
Pickle read_pickle(std::string_view bytes, const std::string& source);

}  // namespace twinlens
