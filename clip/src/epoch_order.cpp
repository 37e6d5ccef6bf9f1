#include "twinlens/clip/epoch_order.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

constexpr std::int64_t kRun = 256;  // samples read in sequence: some 5 MB

}  // namespace

std::uint64_t caption_draw(std::uint64_t seed, std::int64_t epoch, std::int64_t sample) {
  return mix(mix(mix(seed, site_of("loader.caption")), static_cast<std::uint64_t>(epoch)), static_cast<std::uint64_t>(sample));
}

EpochOrder::EpochOrder(const Dataset& data, const OrderOptions& options, std::int64_t epoch) : seed_(options.seed), epoch_(epoch) {
  if (options.global_batch < 1) {
    throw ConfigError("epoch order: global_batch is " + std::to_string(options.global_batch) + "; OrderOptions; give at least 1");
  }
  for (const DataSource& source : data.sources()) {
    const auto entries = static_cast<std::int64_t>(std::llround(source.weight * static_cast<double>(source.count)));
    sources_.push_back({source, entries, entries_});
    entries_ += entries;
  }
  buffer_ = options.buffer > 0 ? options.buffer : data.sequential() ? kStreamBuffer : 0;
  if (buffer_ > 0) buffer_ = std::max(buffer_, options.global_batch);
  if (buffer_ > 0) make_runs(data, data.sequential());
  size_ = entries_ / options.global_batch * options.global_batch;
  if (!options.apart) return;
  if (data.sequential()) {
    throw ConfigError(
        "equal captions cannot be kept apart in streamed shards; --equal-captions apart; use positives, or --compressed-shards unpack");
  }
  is_apart_ = true;
  keep_apart(data, options);
  size_ = static_cast<std::int64_t>(apart_.size());
}

// An entry is a place before anything is permuted: each source's samples, as often as its weight says.
std::int64_t EpochOrder::sample_of_entry(std::int64_t entry) const {
  std::size_t s = 0;
  while (entry >= sources_[s].first + sources_[s].entries) ++s;
  const Source& source = sources_[s];
  const std::int64_t n = source.data.count, in_source = entry - source.first, copy = in_source / n, at = in_source % n;
  if (copy < source.entries / n) return source.data.begin + at;
  // The copy that is not whole: which samples it has changes from epoch to epoch.
  return source.data.begin + Permutation(n, mix(seed_, s + 1), static_cast<std::uint64_t>(epoch_))(at);
}

void EpochOrder::make_runs(const Dataset& data, bool sequential) {
  const std::vector<std::int64_t> bounds = data.file_bounds();
  std::vector<std::pair<std::int64_t, std::int64_t>> all;  // begin, count
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    const DataSource& source = sources_[s].data;
    std::vector<std::pair<std::int64_t, std::int64_t>> own;
    for (std::size_t f = 0; f + 1 < bounds.size(); ++f) {
      const std::int64_t end = std::min(bounds[f + 1], source.begin + source.count);
      for (std::int64_t begin = std::max(bounds[f], source.begin); begin < end;) {
        const std::int64_t count = sequential ? end - begin : std::min(kRun, end - begin);
        own.emplace_back(begin, count);
        begin += count;
      }
    }
    std::int64_t left = sources_[s].entries;
    for (; left >= source.count && source.count > 0; left -= source.count) all.insert(all.end(), own.begin(), own.end());
    const Permutation chosen(static_cast<std::int64_t>(own.size()), mix(seed_, s + 1), static_cast<std::uint64_t>(epoch_));
    for (std::int64_t k = 0; left > 0; ++k) {
      const auto [begin, count] = own[static_cast<std::size_t>(chosen(k))];
      all.emplace_back(begin, std::min(count, left));
      left -= std::min(count, left);
    }
  }
  const Permutation shuffled(static_cast<std::int64_t>(all.size()), mix(seed_, 0x72756E73), static_cast<std::uint64_t>(epoch_));
  std::int64_t first = 0;
  for (std::int64_t k = 0; k < static_cast<std::int64_t>(all.size()); ++k) {
    const auto [begin, count] = all[static_cast<std::size_t>(shuffled(k))];
    runs_.push_back({begin, first});
    first += count;
  }
}

std::int64_t EpochOrder::base(std::int64_t place) const {
  if (buffer_ == 0) {
    const std::int64_t entry = Permutation(entries_, seed_, static_cast<std::uint64_t>(epoch_))(place);
    return sources_.size() == 1 && sources_[0].data.weight == 1.0 ? entry : sample_of_entry(entry);
  }
  const std::int64_t block = place / buffer_, begin = block * buffer_, count = std::min(buffer_, entries_ - begin);
  const Permutation shuffled(count, mix(seed_, static_cast<std::uint64_t>(block) + 1), static_cast<std::uint64_t>(epoch_));
  const std::int64_t in_runs = begin + shuffled(place - begin);
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), in_runs, [](std::int64_t p, const Run& run) { return p < run.first; });
  const Run& run = *std::prev(after);
  return run.begin + (in_runs - run.first);
}

// Each batch first takes those that wait, longest first and one of each caption, then goes on in the order.
void EpochOrder::keep_apart(const Dataset& data, const OrderOptions& o) {
  const auto id_of = [&](std::int64_t sample) {
    return o.draw_captions ? data.drawn_caption_id(sample, caption_draw(seed_, epoch_, sample)) : data.caption_id(sample);
  };
  struct Waiting {
    std::int64_t arrived = 0, sample = 0;
  };
  std::unordered_map<std::int64_t, std::deque<Waiting>> waiting;  // by caption
  std::map<std::int64_t, std::int64_t> heads;                     // arrival of the first that waits -> its caption
  std::vector<std::int64_t> batch;
  for (std::int64_t next = 0;;) {
    batch.clear();
    std::unordered_set<std::int64_t> captions;
    std::vector<std::int64_t> taken;
    for (auto it = heads.begin(); it != heads.end() && static_cast<std::int64_t>(batch.size()) < o.global_batch; it = heads.erase(it)) {
      std::deque<Waiting>& queue = waiting[it->second];
      batch.push_back(queue.front().sample);
      queue.pop_front();
      captions.insert(it->second);
      taken.push_back(it->second);
    }
    for (const std::int64_t caption : taken) {
      const auto it = waiting.find(caption);
      if (it->second.empty()) {
        waiting.erase(it);
      } else {
        heads.emplace(it->second.front().arrived, caption);
      }
    }
    while (static_cast<std::int64_t>(batch.size()) < o.global_batch && next < entries_) {
      const std::int64_t place = next++, sample = base(place), caption = id_of(sample);
      if (captions.insert(caption).second) {
        batch.push_back(sample);
        continue;
      }
      std::deque<Waiting>& queue = waiting[caption];
      if (queue.empty()) heads.emplace(place, caption);
      queue.push_back({place, sample});
    }
    if (static_cast<std::int64_t>(batch.size()) < o.global_batch) return;
    apart_.insert(apart_.end(), batch.begin(), batch.end());
  }
}

}  // namespace twinlens
