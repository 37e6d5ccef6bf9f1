#include "clip/src/data/captions.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "clip/src/data/dataset_base.h"

#include "twinlens/clip/text_encoding.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

constexpr std::size_t kMostCaptions = 256;

void add(std::vector<Caption>& out, const std::string& text, std::size_t key) {
  std::string clean = trimmed(std::string(without_byte_order_mark(text)));
  if (!clean.empty() && out.size() < kMostCaptions) out.push_back({std::move(clean), static_cast<std::uint8_t>(key)});
}

}  // namespace

std::vector<std::string> split_keys(const std::string& list) {
  std::vector<std::string> keys;
  std::size_t begin = 0;
  while (begin <= list.size()) {
    const std::size_t end = std::min(list.find(';', begin), list.size());
    if (std::string key = trimmed(list.substr(begin, end - begin)); !key.empty()) keys.push_back(std::move(key));
    begin = end + 1;
  }
  return keys;
}

CaptionRules::CaptionRules(const DatasetOptions& o)
    : image_keys_(split_keys(o.image_key)), json_keys_(split_keys(o.json_text_key)), weights_(o.json_text_key_probs), policy_(o.captions) {
  source_keys_ = json_keys_.empty() ? split_keys(o.text_key) : std::vector<std::string>{"json"};
  if (image_keys_.empty()) throw UsageError("no extension for pictures; --image-key; give 'jpg;png;jpeg;webp'");
  picture_keys_ = image_keys_;
  if (std::any_of(image_keys_.begin(), image_keys_.end(), [](const std::string& key) { return key == "jpg" || key == "jpeg"; })) {
    picture_keys_.insert(picture_keys_.end(), {"jpe", "jfif"});
  }
  if (source_keys_.empty()) throw UsageError("no extension for captions; --text-key; give 'txt'");
  if (json_keys_.size() > 200) throw UsageError("more than 200 keys; --json-text-key; give fewer");
  if (weights_.empty()) return;
  double sum = 0.0;
  for (const double weight : weights_) {
    if (!(weight >= 0.0)) throw UsageError("a weight is negative; --json-text-key-probs; give weights of 0 or more");
    sum += weight;
  }
  if (weights_.size() > json_keys_.size()) {
    throw UsageError(std::to_string(weights_.size()) + " weights for " + std::to_string(json_keys_.size()) +
                     " keys; --json-text-key-probs; give at most one for each key of --json-text-key");
  }
  if (!(sum > 0.0)) throw UsageError("all weights are 0; --json-text-key-probs; give one above 0");
  weights_.resize(json_keys_.size(), 0.0);
  if (policy_ == "first") policy_ = "random";  // weights are for drawing
}

std::vector<Caption> CaptionRules::read(const std::string& bytes) const {
  std::vector<Caption> out;
  if (json_keys_.empty()) {
    add(out, bytes, 0);
    return out;
  }
  const auto json = nlohmann::json::parse(bytes, nullptr, false);
  if (!json.is_object()) return out;
  for (std::size_t k = 0; k < json_keys_.size(); ++k) {
    const auto it = json.find(json_keys_[k]);
    if (it == json.end()) continue;
    if (it->is_string()) add(out, it->get_ref<const std::string&>(), k);
    if (!it->is_array()) continue;
    for (const auto& item : *it) {
      if (item.is_string()) add(out, item.get_ref<const std::string&>(), k);
    }
  }
  return out;
}

std::size_t CaptionRules::pick(const std::uint8_t* keys, std::size_t count, std::uint64_t draw) const {
  if (policy_ != "random" || count <= 1) return 0;
  const double u = static_cast<double>(mix(draw, 0x63617074) >> 11) * 0x1p-53;  // [0, 1)
  if (weights_.empty()) return std::min(count - 1, static_cast<std::size_t>(u * static_cast<double>(count)));
  // A key's weight is shared by the captions that stand under it.
  std::vector<double> share(weights_.size(), 0.0);
  for (std::size_t i = 0; i < count; ++i) share[keys[i]] += 1.0;
  double sum = 0.0;
  for (std::size_t i = 0; i < count; ++i) sum += weights_[keys[i]] / share[keys[i]];
  double left = u * sum;
  std::size_t last = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double weight = weights_[keys[i]] / share[keys[i]];
    if (weight <= 0.0) continue;
    if (left < weight) return i;
    left -= weight;
    last = i;
  }
  return last;
}

std::uint64_t CaptionRules::digest() const {
  std::uint64_t h = 5;  // of the rules' own version
  for (const auto* keys : {&image_keys_, &source_keys_, &json_keys_}) {
    for (const std::string& key : *keys) h = mix(h, hash_bytes(key.data(), key.size()));
    h = mix(h, keys->size());
  }
  return h;
}

std::uint64_t hash_bytes(const void* bytes, std::size_t count, std::uint64_t before) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  std::uint64_t h = mix(before, count);
  for (; count >= 8; p += 8, count -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    h = mix(h, word);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, p, count);
  return mix(h, rest);
}

std::int64_t caption_id_of(const std::string& text) { return static_cast<std::int64_t>(hash_bytes(text.data(), text.size()) >> 1); }

}  // namespace twinlens
