#include "kernels/cpu/once/pages.h"

#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

namespace twinlens {
namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20;
#if defined(MADV_HUGEPAGE) && !defined(TWINLENS_SANITIZED)
constexpr bool kMapsLarge = true;
#else
constexpr bool kMapsLarge = false;
#endif
bool is_mapped(std::size_t bytes) { return kMapsLarge && bytes >= kLargePage; }
std::size_t whole_pages(std::size_t bytes) {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

void* map_pages(std::size_t bytes) {
  void* const mapped = mmap(nullptr, bytes + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const base = static_cast<unsigned char*>(mapped);
  const std::size_t before = (kLargePage - reinterpret_cast<std::uintptr_t>(base) % kLargePage) % kLargePage;
  if (before > 0) munmap(base, before);
  munmap(base + before + bytes, kLargePage - before);
#if defined(MADV_HUGEPAGE)
  madvise(base + before, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);  // a wish: the result does not matter
#endif
  return base + before;
}

}  // namespace

void* pages_allocate(std::size_t bytes) { return is_mapped(bytes) ? map_pages(whole_pages(bytes)) : std::aligned_alloc(64, bytes); }

void pages_free(void* data, std::size_t bytes) {
  if (is_mapped(bytes)) {
    munmap(data, whole_pages(bytes));
  } else {
    std::free(data);
  }
}

}  // namespace twinlens
