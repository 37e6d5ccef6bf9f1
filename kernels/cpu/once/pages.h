#pragma once
// Where blocks of the CPU come from.
//
// Large ones lie on pages of 2 MiB where the system has them: a product walks over rows that are each on another page, and a page of 4 KiB
// costs a walk through the page tables each time. (Their end, behind the last whole page, does not: a large page is taken as a whole.) They
// come from the system itself, so that they go back to it when they are freed; with AddressSanitizer, which sees the ends of malloc's
// blocks only, from malloc.

#include <cstddef>

namespace twinlens {

// Aligned to 64 bytes; null when there is none left. `bytes` is a multiple of 64, and the same when it is freed.
void* pages_allocate(std::size_t bytes);
void pages_free(void* data, std::size_t bytes);

}  // namespace twinlens
