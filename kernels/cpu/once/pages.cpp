#include "kernels/cpu/once/pages.h"

#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>

namespace twinlens {
namespace {

constexpr std::size_t kPage = std::size_t{2} << 20;
#if defined(MADV_HUGEPAGE) && !defined(__SANITIZE_ADDRESS__)
constexpr bool kMapsLarge = true;
#else
constexpr bool kMapsLarge = false;
#endif
bool is_large(std::size_t bytes) { return kMapsLarge && bytes >= 2 * kPage; }
std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void* map_pages(std::size_t bytes) {
  void* const mapped = mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const base = static_cast<unsigned char*>(mapped);
  const std::size_t before = (kPage - reinterpret_cast<std::uintptr_t>(base) % kPage) % kPage;
  if (before > 0) munmap(base, before);
  munmap(base + before + bytes, kPage - before);
#if defined(MADV_HUGEPAGE)
  madvise(base + before, bytes, MADV_HUGEPAGE);  // a wish: the result does not matter
#endif
  return base + before;
}

}  // namespace

void* pages_allocate(std::size_t bytes) { return is_large(bytes) ? map_pages(whole_pages(bytes)) : std::aligned_alloc(64, bytes); }

void pages_free(void* data, std::size_t bytes) {
  if (is_large(bytes)) {
    munmap(data, whole_pages(bytes));
  } else {
    std::free(data);
  }
}

}  // namespace twinlens
