#include "clip/src/data/shard_index.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "twinlens/core/crc32c.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

constexpr char kMagic[8] = {'T', 'W', 'L', 'N', 'I', 'D', 'X', '2'};

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw FileError("index cannot be used: " + why + "; " + name + "; delete it, it is made anew");
}

std::uint32_t header_sum(ShardHeader header) {
  header.header_sum = 0;
  return crc32c(&header, sizeof header);
}

std::size_t padded(std::uint64_t bytes) { return static_cast<std::size_t>((bytes + 7) / 8 * 8); }

template <class T>
void append(std::string& out, const T* values, std::size_t count) {
  out.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

std::string ShardIndex::key(std::int64_t sample) const {
  return std::string(keys_.substr(records_[sample].key, records_[sample + 1].key - records_[sample].key));
}

std::int64_t ShardIndex::sample_of_caption(std::int64_t caption) const {
  const auto* const end = records_ + header_.samples + 1;
  const auto* const after =
      std::upper_bound(records_, end, caption, [](std::int64_t c, const ShardRecord& r) { return c < std::int64_t{r.caption}; });
  return after - records_ - 1;
}

std::string_view ShardIndex::text(std::int64_t sample) const {
  return texts_.substr(static_cast<std::size_t>(records_[sample].text), records_[sample].text_size);
}

std::vector<SkippedSample> ShardIndex::skipped() const {
  std::vector<SkippedSample> out;
  std::size_t at = 0;
  const auto next = [&] {
    const std::size_t end = skipped_.find('\0', at);
    std::string word(skipped_.substr(at, end - at));
    at = end == std::string_view::npos ? skipped_.size() : end + 1;
    return word;
  };
  while (at < skipped_.size()) {
    std::string key = next();
    out.push_back({std::move(key), next()});
  }
  return out;
}

std::shared_ptr<const ShardIndex> ShardIndex::from_bytes(std::string bytes, const std::string& name) {
  std::shared_ptr<ShardIndex> index(new ShardIndex);
  index->owned_ = std::move(bytes);
  index->view_ = index->owned_;
  index->adopt(name);
  return index;
}

std::shared_ptr<const ShardIndex> ShardIndex::from_file(const std::string& path) {
  std::shared_ptr<ShardIndex> index(new ShardIndex);
  index->mapped_ = std::make_unique<MappedFile>(path);
  index->view_ = index->mapped_->bytes();
  index->adopt(path);
  return index;
}

void ShardIndex::adopt(const std::string& name) {
  if (view_.size() < sizeof header_) refuse(name, "it is cut short");
  std::memcpy(&header_, view_.data(), sizeof header_);
  if (std::memcmp(header_.magic, kMagic, sizeof kMagic) != 0) refuse(name, "it is of another version or no index");
  if (header_.header_sum != header_sum(header_)) refuse(name, "its header is damaged");
  // (The header is what was written; its numbers are still not trusted with the arithmetic.)
  constexpr std::uint64_t kMost = std::uint64_t{1} << 32;
  for (const std::uint64_t count : {header_.samples, header_.captions, header_.key_bytes, header_.text_bytes, header_.skipped_bytes}) {
    if (count >= kMost) refuse(name, "its header is damaged");
  }
  std::size_t at = sizeof header_;
  const auto take = [&](std::size_t bytes) {
    const std::size_t begin = at;
    at += bytes;
    return begin;
  };
  const std::size_t records = take((header_.samples + 1) * sizeof(ShardRecord)), ids = take(header_.captions * sizeof(std::int64_t)),
                    caption_keys = take(padded(header_.captions)), keys = take(header_.key_bytes), texts = take(header_.text_bytes),
                    skipped = take(header_.skipped_bytes);
  if (at != view_.size()) refuse(name, "it has " + std::to_string(view_.size()) + " bytes, not " + std::to_string(at));
  if (crc32c(view_.substr(sizeof header_)) != header_.body_sum) refuse(name, "it is damaged (CRC-32C)");
  records_ = reinterpret_cast<const ShardRecord*>(view_.data() + records);
  ids_ = reinterpret_cast<const std::int64_t*>(view_.data() + ids);
  caption_keys_ = reinterpret_cast<const std::uint8_t*>(view_.data() + caption_keys);
  keys_ = view_.substr(keys, header_.key_bytes);
  texts_ = view_.substr(texts, header_.text_bytes);
  skipped_ = view_.substr(skipped, header_.skipped_bytes);
  check_records(name);
}

void ShardIndex::check_records(const std::string& name) const {
  const std::uint64_t end = compressed() ? header_.stream_size : header_.shard_size;
  const auto inside = [](std::uint64_t offset, std::uint64_t size, std::uint64_t limit) { return size <= limit && offset <= limit - size; };
  bool good = records_[0].key == 0 && records_[0].caption == 0 && records_[header_.samples].key == header_.key_bytes &&
              records_[header_.samples].caption == header_.captions;
  for (std::uint64_t i = 0; good && i < header_.samples; ++i) {
    const ShardRecord& r = records_[i];
    good = r.key <= records_[i + 1].key && r.caption < records_[i + 1].caption && inside(r.image, r.image_size, end) &&
           inside(r.json, r.json_size, end) && inside(r.text, r.text_size, compressed() ? header_.text_bytes : end);
  }
  for (std::uint64_t i = 0; good && i < header_.captions; ++i) good = ids_[i] >= 0 && caption_keys_[i] < 200;
  if (!good) refuse(name, "an entry points outside of the shard");
}

void ShardIndexBuilder::add(const std::string& key, Member image, Member text, Member json, const std::vector<Caption>& captions,
                            const std::string& source) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (keys_.size() + key.size() > kMost || texts_.size() + source.size() > kMost) {
    throw FileError("index: the keys or captions of a shard exceed 4 GiB; " + key + "; split the shard");
  }
  ShardRecord r;
  r.image = image.offset;
  r.image_size = image.size;
  r.text = header_.compressed != 0 ? texts_.size() : text.offset;
  r.text_size = text.size;
  r.json = json.offset;
  r.json_size = json.size;
  r.key = static_cast<std::uint32_t>(keys_.size());
  r.caption = static_cast<std::uint32_t>(ids_.size());
  records_.push_back(r);
  keys_ += key;
  if (header_.compressed != 0) texts_ += source;
  header_.content = hash_bytes(key.data(), key.size(), header_.content);
  for (const Caption& caption : captions) {
    ids_.push_back(caption_id_of(caption.text));
    caption_keys_ += static_cast<char>(caption.key);
    header_.content = mix(header_.content, static_cast<std::uint64_t>(ids_.back()));
  }
}

void ShardIndexBuilder::skip(const std::string& key, const std::string& reason) {
  skipped_ += key.substr(0, key.find('\0')) + '\0' + reason + '\0';
}

std::string ShardIndexBuilder::finish(std::uint64_t shard_size, std::int64_t shard_modified, std::uint64_t stream_size,
                                      std::uint64_t rules) {
  std::memcpy(header_.magic, kMagic, sizeof kMagic);
  header_.shard_size = shard_size;
  header_.shard_modified = shard_modified;
  header_.stream_size = stream_size;
  header_.rules = rules;
  header_.samples = records_.size();
  header_.captions = ids_.size();
  header_.key_bytes = keys_.size();
  header_.text_bytes = texts_.size();
  header_.skipped_bytes = skipped_.size();
  ShardRecord last;
  last.key = static_cast<std::uint32_t>(keys_.size());
  last.caption = static_cast<std::uint32_t>(ids_.size());
  std::string out(sizeof header_, '\0');
  append(out, records_.data(), records_.size());
  append(out, &last, 1);
  append(out, ids_.data(), ids_.size());
  out += caption_keys_ + std::string(padded(caption_keys_.size()) - caption_keys_.size(), '\0') + keys_ + texts_ + skipped_;
  header_.body_sum = crc32c(std::string_view(out).substr(sizeof header_));
  header_.header_sum = header_sum(header_);
  std::memcpy(out.data(), &header_, sizeof header_);
  return out;
}

}  // namespace twinlens
