#include "twinlens/kernels/philox.h"

#include <catch2/catch.hpp>
#include <string>

namespace twinlens {

// The philox4x32 lines for 10 rounds of kat_vectors, Random123 1.14 (Salmon et al., https://github.com/DEShawResearch/random123).
// Counter words c0 to c3, key words k0 and k1, result.
TEST_CASE("Philox4x32-10 gives the published answers", "[random]") {
  struct Answer {
    std::uint32_t counter[4], key[2], result[4];
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  const auto joined = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  for (const Answer& a : answers) {
    const Philox4 got = philox(joined(a.key[0], a.key[1]), joined(a.counter[2], a.counter[3]), joined(a.counter[0], a.counter[1]));
    for (int i = 0; i < 4; ++i) CHECK(got.v[i] == a.result[i]);
  }
}

TEST_CASE("site hashes are FNV-1a and 24 random bits are exact", "[random]") {
  // From the test suite of the FNV reference code (http://www.isthe.com/chongo/src/fnv/test_fnv.c).
  CHECK(site_hash("") == 0xcbf29ce484222325ULL);
  CHECK(site_hash("a") == 0xaf63dc4c8601ec8cULL);
  CHECK(site_hash("foobar") == 0x85944171f73967e8ULL);
  CHECK(uniform_from_bits(0) == 0.0F);
  CHECK(uniform_from_bits(0xFFFFFFFFU) == 1.0F - 0x1p-24F);
}

}  // namespace twinlens
