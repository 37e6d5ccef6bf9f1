#pragma once
// Reads one JSON object of a model config and names what it does not understand.

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "twinlens/kernels/error.h"

namespace twinlens {

inline constexpr int kLargestConfigNumber = 1 << 20;  // of any whole number in a config

// Reads one JSON object: every key must be asked for, so that nothing which changes the numbers is ignored.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::ordered_json& object, std::string source, std::string section)
      : object_(object), source_(std::move(source)), section_(std::move(section)) {
    if (!object_.is_object()) fail("is not an object", "give a JSON object");
  }

  template <class T>
  void read(const char* key, T& value) {
    known_.insert(key);
    const auto it = object_.find(key);
    if (it == object_.end() || it->is_null()) return;
    check_whole<T>(key, *it);
    try {
      value = it->template get<T>();
    } catch (const nlohmann::ordered_json::exception&) {
      fail(std::string("key '") + key + "' has the wrong type: " + it->dump(), "see docs/models.md for its type");
    }
  }
  // A key that is understood at one value only.
  template <class T>
  void require(const char* key, const T& supported) {
    T value = supported;
    read(key, value);
    if (!(value == supported)) {
      fail(std::string("key '") + key + "' = " + object_.at(key).dump() + " is not supported",
           std::string("supported: ") + nlohmann::ordered_json(supported).dump());
    }
  }
  // A key without which open_clip takes `otherwise`, which is not supported.
  void require_given(const char* key, const std::string& otherwise) const {
    if (!object_.contains(key))
      fail(std::string("no key '") + key + "', which is then '" + otherwise + "' and not supported", "see docs/models.md for what is");
  }
  // A layer scale's initial value. 0 is none here, and in open_clip one of zeros.
  void read_layer_scale(double& value) {
    const char* key = "ls_init_value";
    read(key, value);
    if (const auto it = object_.find(key); it != object_.end() && !it->is_null() && value == 0.0)
      fail(std::string("key '") + key + "' = " + it->dump() + " lets no block do anything",
           "leave it out for none, or give a small number");
  }
  // A key that does not change the numbers.
  void ignore(const char* key) { known_.insert(key); }
  const nlohmann::ordered_json* child(const char* key) {
    known_.insert(key);
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (known_.count(key) == 0) fail("key '" + key + "' is not supported", "remove it or use another model");
    }
  }

 private:
  // A conversion would cut fractions off and wrap what is too large.
  template <class T>
  void check_whole(const char* key, const nlohmann::ordered_json& json) const {
    if constexpr (std::is_same_v<T, std::array<float, 3>>) {
      if (!json.is_array() || json.size() != 3)
        fail(std::string("key '") + key + "' = " + json.dump() + " is not 3 numbers", "give one a colour");
    } else if constexpr (std::is_same_v<T, std::vector<int>>) {
      for (const nlohmann::ordered_json& element : json) check_whole<int>(key, element);
    } else if constexpr (std::is_same_v<T, int>) {
      const double number = json.is_number() ? json.get<double>() : 0.5;
      if (number == std::floor(number) && std::abs(number) <= kLargestConfigNumber) return;
      fail(std::string("key '") + key + "' = " + json.dump() + " is no whole number up to " + std::to_string(kLargestConfigNumber),
           "see docs/models.md for its type");
    }
  }
  [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
    throw ConfigError("model config: " + what + "; " + source_ + (section_.empty() ? "" : " " + section_) + "; " + remedy);
  }
  const nlohmann::ordered_json& object_;
  std::string source_, section_;
  std::set<std::string> known_;
};

}  // namespace twinlens
