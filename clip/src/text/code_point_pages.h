#pragma once
// A property of every code point, computed by ICU (or whatever is slow) the first time that one of its page of 256 is asked for.
//
// Any thread may ask; two that meet a new page make it twice, and one copy stays. Pages live as long as the program: a table is a global
// or a static of a function.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace twinlens {

template <class T, T (*compute)(std::uint32_t)>
class CodePointPages {
 public:
  // c must be at most U+10FFFF.
  const T& operator[](std::uint32_t c) const {
    const Page* page = pages_[c >> 8U].load(std::memory_order_acquire);
    if (page == nullptr) page = make(c >> 8U);
    return (*page)[c & 0xFFU];
  }

 private:
  using Page = std::array<T, 256>;

  const Page* make(std::uint32_t number) const {
    auto page = std::make_unique<Page>();
    for (std::uint32_t i = 0; i < 256; ++i) (*page)[i] = compute(number << 8U | i);
    const Page* there = nullptr;
    return pages_[number].compare_exchange_strong(there, page.get(), std::memory_order_acq_rel) ? page.release() : there;
  }

  mutable std::array<std::atomic<const Page*>, 0x1100> pages_{};
};

}  // namespace twinlens
