#pragma once
// The ids of words that a tokenizer has met, so that a word is merged once. Only speed depends on it.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string_view>
#include <vector>

#include "clip/src/text/hash_text.h"

namespace twinlens {

// For one thread at a time. Fixed memory, 4 MB, touched as it fills: an entry of two cache lines holds a word and its ids, and a word has
// four places; when all are taken it replaces one.
class WordCache {
 public:
  WordCache() : memory_(std::calloc(kEntries + 1, sizeof(Entry))) {
    if (memory_ == nullptr) throw std::bad_alloc();
    std::size_t space = (kEntries + 1) * sizeof(Entry);
    void* at = memory_.get();
    entries_ = static_cast<Entry*>(std::align(alignof(Entry), kEntries * sizeof(Entry), at, space));
  }

  // Appends the ids of the word and returns true, when known.
  bool find(std::string_view word, std::vector<std::int32_t>& out) const {
    const std::uint64_t hash = hash_text(word);
    const Entry* set = entries_ + first_of(hash);
    for (std::size_t i = 0; i < kPlaces; ++i) {
      const Entry& e = set[i];
      if (e.hash != static_cast<std::uint32_t>(hash) || e.bytes != word.size() || std::memcmp(e.word, word.data(), word.size()) != 0)
        continue;
      out.insert(out.end(), e.ids, e.ids + e.count);
      return true;
    }
    return false;
  }
  // Long words are not kept, nor the empty one.
  void put(std::string_view word, const std::int32_t* ids, std::size_t count) {
    if (word.empty() || word.size() > kMostBytes || count > kMostIds) return;
    const std::uint64_t hash = hash_text(word);
    Entry* set = entries_ + first_of(hash);
    std::size_t i = 0;
    while (i < kPlaces && set[i].bytes != 0) ++i;
    Entry& e = set[i < kPlaces ? i : hash % kPlaces];
    e.hash = static_cast<std::uint32_t>(hash);
    e.bytes = static_cast<std::uint8_t>(word.size());
    e.count = static_cast<std::uint8_t>(count);
    std::memcpy(e.word, word.data(), word.size());
    std::memcpy(e.ids, ids, count * sizeof(std::int32_t));
  }

 private:
  static constexpr std::size_t kMostBytes = 56, kMostIds = 16, kPlaces = 4, kEntries = std::size_t{1} << 15U;
  struct alignas(128) Entry {
    std::uint32_t hash;
    std::uint8_t bytes, count;  // bytes 0: free
    char word[kMostBytes];
    std::int32_t ids[kMostIds];
  };
  static std::size_t first_of(std::uint64_t hash) { return (hash >> 32U) % (kEntries / kPlaces) * kPlaces; }

  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  Entry* entries_ = nullptr;
};

// As many caches as threads have been in at once. A thread takes one for a text, which costs a lock a text and none a word.
class WordCaches {
 public:
  class Lease {
   public:
    explicit Lease(WordCaches& from) : from_(from), cache_(from.take()) {}
    ~Lease() { from_.give(std::move(cache_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordCache* operator->() { return cache_.get(); }

   private:
    WordCaches& from_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<WordCache> cache = std::move(free_.back());
        free_.pop_back();
        return cache;
      }
      free_.reserve(++made_);  // so that giving back cannot fail
    }
    return std::make_unique<WordCache>();
  }
  void give(std::unique_ptr<WordCache> cache) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(cache));
  }

  std::mutex mutex_;
  std::size_t made_ = 0;
  std::vector<std::unique_ptr<WordCache>> free_;  // the one used last is at the end
};

}  // namespace twinlens
