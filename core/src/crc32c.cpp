#include "twinlens/core/crc32c.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "twinlens/core/file.h"

namespace twinlens {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78U;  // reflected
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the sum of byte b followed by k zero bytes, so that eight bytes are looked up at once.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t sum = b;
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1U) != 0 ? kPolynomial : 0U);
    tables[0][b] = sum;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xFFU];
  }
  return tables;
}
constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t crc32c(const void* bytes, std::size_t count, std::uint32_t before) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  std::uint32_t sum = ~before;
  for (; count >= 8; p += 8, count -= 8) {
    std::uint32_t low = 0, high = 0;  // little endian, as the rest of the library
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + 4, 4);
    low ^= sum;
    sum = kTables[7][low & 0xFFU] ^ kTables[6][(low >> 8) & 0xFFU] ^ kTables[5][(low >> 16) & 0xFFU] ^ kTables[4][low >> 24] ^
          kTables[3][high & 0xFFU] ^ kTables[2][(high >> 8) & 0xFFU] ^ kTables[1][(high >> 16) & 0xFFU] ^ kTables[0][high >> 24];
  }
  for (; count > 0; ++p, --count) sum = (sum >> 8) ^ kTables[0][(sum ^ *p) & 0xFFU];
  return ~sum;
}

std::uint32_t crc32c_of_file(const std::string& path) {
  const InputFile file(path);
  std::string block(std::size_t{1} << 20, '\0');
  std::uint32_t sum = 0;
  for (std::uint64_t at = 0; at < file.size();) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), file.size() - at));
    file.read_at(at, block.data(), count);
    sum = crc32c(block.data(), count, sum);
    at += count;
  }
  return sum;
}

}  // namespace twinlens
