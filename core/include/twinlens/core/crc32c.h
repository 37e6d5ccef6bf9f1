#pragma once
// CRC-32C (Castagnoli, RFC 3720 appendix B.4): what checkpoints, index files and TensorBoard's records are checked with.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace twinlens {

// The sum of all bytes so far: crc32c(b, n, crc32c(a, m)) is the sum of a followed by b. About 1.5 GB/s.
std::uint32_t crc32c(const void* bytes, std::size_t count, std::uint32_t before = 0);
inline std::uint32_t crc32c(std::string_view bytes) { return crc32c(bytes.data(), bytes.size()); }

// The sum of a file's bytes, read in pieces. Throws FileError.
std::uint32_t crc32c_of_file(const std::string& path);

}  // namespace twinlens
