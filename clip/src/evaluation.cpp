#include "twinlens/clip/evaluation.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <unordered_map>

#include "twinlens/clip/loss.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

namespace {

// Pictures that were not met before, as they are encoded.
struct NewPictures {
  std::vector<std::string> bytes, names;
  std::vector<std::size_t> numbers;  // Gatherer's
};

// Goes through samples in order and numbers the pictures that they show, each once, or, with `each_sample`, as often as it is shown.
class Gatherer {
 public:
  Gatherer(const Dataset& data, bool each_sample) : data_(data), each_sample_(each_sample) {}

  NewPictures batch(std::span<const std::int64_t> samples, std::vector<SkippedSample>& skipped) {
    NewPictures out;
    for (const std::int64_t i : samples) {
      const bool follows = i == last_sample_ + 1;
      last_sample_ = i;
      const std::string place = each_sample_ ? std::string() : data_.picture_place(i);
      if (const auto known = by_place_.find(place); !place.empty() && known != by_place_.end()) {
        last_bytes_.clear();
        samples_[known->second].push_back(i);
        continue;
      }
      try {
        std::string bytes = data_.image_bytes(i);
        const bool repeats = !each_sample_ && follows && bytes == last_bytes_ && !bytes.empty();
        if (!repeats) samples_.emplace_back();
        samples_.back().push_back(i);
        if (!place.empty()) by_place_.emplace(place, samples_.size() - 1);
        if (repeats) continue;
        last_bytes_ = bytes;
        out.bytes.push_back(std::move(bytes));
        out.names.push_back(data_.key(i));
        out.numbers.push_back(samples_.size() - 1);
      } catch (const FileError& e) {
        skipped.push_back({data_.key(i), e.what()});
      }
    }
    return out;
  }
  // All that show picture `number`.
  const std::vector<std::int64_t>& samples_of(std::size_t number) const { return samples_[number]; }

 private:
  const Dataset& data_;
  bool each_sample_;
  std::unordered_map<std::string, std::size_t> by_place_;
  std::vector<std::vector<std::int64_t>> samples_;  // of a picture
  std::string last_bytes_;
  std::int64_t last_sample_ = -2;
};

}  // namespace

EmbeddedDataset embed_dataset(const Clip& model, const Tokenizer& tokenizer, const Dataset& data, const EmbedOptions& options) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(data.size()));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return embed_dataset(model, tokenizer, data, all, options);
}

EmbeddedDataset embed_dataset(const Clip& model, const Tokenizer& tokenizer, const Dataset& data, const std::vector<std::int64_t>& samples,
                              const EmbedOptions& options) {
  check(options.batch_size > 0, "embed_dataset", "needs a positive batch size");
  const NoGrad guard;
  EmbeddedDataset out;
  out.skipped = data.skipped();
  std::vector<Tensor> parts;
  Gatherer gatherer(data, options.each_sample || data.has_classes());
  std::vector<std::size_t> kept;
  std::vector<std::pair<std::size_t, std::string>> broken;  // pictures that cannot be decoded, and why
  const auto batch = static_cast<std::size_t>(options.batch_size);
  for (std::size_t begin = 0; begin < samples.size(); begin += batch) {
    if (options.stop != nullptr && options.stop->load()) throw Stopped();
    const NewPictures found = gatherer.batch(std::span(samples).subspan(begin, std::min(batch, samples.size() - begin)), out.skipped);
    if (found.bytes.empty()) continue;
    const LoadedPictures pictures = load_pictures(model, found.bytes, found.names, options);
    std::size_t bad = 0;
    for (std::size_t k = 0; k < found.numbers.size(); ++k) {
      const bool is_kept = k - bad < pictures.kept.size() && pictures.kept[k - bad] == static_cast<std::int64_t>(k);
      if (is_kept) {
        kept.push_back(found.numbers[k]);
      } else {
        broken.emplace_back(found.numbers[k], pictures.skipped[bad++].reason);
      }
    }
    if (!pictures.kept.empty()) parts.push_back(embed_pictures(model, pictures.pixels, options));
  }
  for (const auto& [number, reason] : broken) {
    for (const std::int64_t sample : gatherer.samples_of(number)) out.skipped.push_back({data.key(sample), reason});
  }
  if (parts.empty())
    throw FileError("evaluation: no usable picture; " + std::to_string(out.skipped.size()) + " were skipped" +
                    (out.skipped.empty() ? std::string() : ", first: " + out.skipped.front().key + ": " + out.skipped.front().reason) +
                    "; mend the data");
  std::unordered_map<std::int64_t, std::int64_t> text_of;
  for (const std::size_t number : kept) {
    out.texts_of.emplace_back();
    for (const std::int64_t sample : gatherer.samples_of(number)) {
      const auto [it, is_new] = text_of.try_emplace(data.caption_id(sample), static_cast<std::int64_t>(out.captions.size()));
      if (is_new) out.captions.push_back(data.caption(sample));
      std::vector<std::int64_t>& texts = out.texts_of.back();
      if (std::find(texts.begin(), texts.end(), it->second) == texts.end()) texts.push_back(it->second);
    }
    out.samples.push_back(gatherer.samples_of(number).front());
    out.caption_of.push_back(out.texts_of.back().front());
  }
  out.images = concat(parts, 0);
  out.texts = embed_texts(model, tokenizer, out.captions, options);
  return out;
}

double validation_loss(const EmbeddedDataset& e, const Tensor& log_scale) {
  constexpr std::int64_t at_once = 256;
  check(e.images.defined() && e.images.size(0) > 0, "validation_loss", "needs at least one picture");
  const NoGrad guard;
  const std::unique_ptr<Communicator> solo = solo_communicator();
  const std::int64_t n = e.images.size(0);
  const Permutation order(n, 0, 0);
  std::vector<std::int64_t> picture_of, caption_of;
  for (std::int64_t i = 0; i < n; ++i) {
    picture_of.push_back(order(i));
    caption_of.push_back(e.caption_of[static_cast<std::size_t>(picture_of.back())]);
  }
  const Tensor rows = from_vector(caption_of, {n});
  const Tensor images = index_select(e.images, 0, from_vector(picture_of, {n})), texts = index_select(e.texts, 0, rows);
  double total = 0.0;
  for (std::int64_t begin = 0; begin < n; begin += at_once) {
    const std::int64_t end = std::min(n, begin + at_once);
    const Tensor loss = clip_loss({images.slice(0, begin, end), texts.slice(0, begin, end), log_scale.to(kCpu), rows.slice(0, begin, end)},
                                  EqualCaptions::positives, *solo);
    total += static_cast<double>(loss.item()) * static_cast<double>(end - begin);
  }
  return total / static_cast<double>(n);
}

std::vector<std::pair<std::string, double>> retrieval_report(const Retrieval& r) {
  std::vector<std::pair<std::string, double>> out;
  const auto add = [&](const std::string& direction, const RecallAtK& k) {
    out.emplace_back(direction + "_R@1", k.r1);
    out.emplace_back(direction + "_R@5", k.r5);
    out.emplace_back(direction + "_R@10", k.r10);
    out.emplace_back(direction + "_mean_rank", k.mean_rank);
    out.emplace_back(direction + "_median_rank", k.median_rank);
  };
  add("image_to_text", r.image_to_text);
  add("text_to_image", r.text_to_image);
  out.emplace_back("num_images", static_cast<double>(r.images));
  out.emplace_back("num_texts", static_cast<double>(r.texts));
  out.emplace_back("chance", r.texts > 0 ? 1.0 / static_cast<double>(r.texts) : 0.0);
  return out;
}

}  // namespace twinlens
