#include "twinlens/clip/patch_dropout.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "twinlens/core/check.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {
namespace {

constexpr std::uint64_t kSite = site_hash("visual.patch_dropout");

}  // namespace

PatchSelection PatchSelection::to(Device device) const {
  return defined() ? PatchSelection{rows.to(device), places.to(device), each} : *this;
}

std::int64_t patches_kept(std::int64_t patches, double dropout) {
  check(patches >= 1 && dropout >= 0.0 && dropout < 1.0, "patches_kept",
        "of " + std::to_string(patches) + " patches a share of " + std::to_string(dropout) +
            " cannot be left out; give at least 1 patch and a share in [0, 1)");
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(patches) * (1.0 - dropout)));
}

PatchSelection select_patches(const std::vector<std::int64_t>& chosen, std::int64_t each, std::int64_t patches) {
  const auto count = static_cast<std::int64_t>(chosen.size());
  check(each > 0 && count % each == 0, "select_patches", std::to_string(count) + " places are not " + std::to_string(each) + " a picture");
  std::vector<std::int64_t> rows(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto in_picture = static_cast<std::int64_t>(i) % each;
    check(chosen[i] >= 0 && chosen[i] < patches && (in_picture == 0 || chosen[i] > chosen[i - 1]), "select_patches",
          "place " + std::to_string(chosen[i]) + " of a picture of " + std::to_string(patches) + " patches; give them in rising order");
    rows[i] = static_cast<std::int64_t>(i) / each * patches + chosen[i];
  }
  return {from_vector(rows, {count}), from_vector(chosen, {count}), each};
}

PatchSelection draw_patches(const std::vector<std::int64_t>& samples, std::int64_t patches, double dropout, std::uint64_t seed,
                            std::uint64_t step) {
  const std::int64_t each = patches_kept(patches, dropout);
  const std::uint64_t key = mix(mix(seed, step), kSite);
  std::vector<std::int64_t> places(static_cast<std::size_t>(patches)), chosen;
  chosen.reserve(samples.size() * static_cast<std::size_t>(each));
  for (const std::int64_t sample : samples) {
    std::iota(places.begin(), places.end(), 0);
    Philox4 bits{};
    for (std::int64_t i = 0; i < each; ++i) {
      if (i % 4 == 0) bits = philox(key, static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(i / 4));
      const std::uint64_t left = static_cast<std::uint64_t>(patches - i), ahead = bits.v[i % 4] * left >> 32;
      std::swap(places[static_cast<std::size_t>(i)], places[static_cast<std::size_t>(i) + ahead]);
    }
    std::sort(places.begin(), places.begin() + each);
    chosen.insert(chosen.end(), places.begin(), places.begin() + each);
  }
  return select_patches(chosen, each, patches);
}

}  // namespace twinlens
