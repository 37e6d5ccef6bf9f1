#pragma once
// What the words of a product are.

#include <cstdint>

namespace twinlens::gemm {

// f32; pairs of bf16; or f32 in three parts, which are pairs of bf16 (split.h).
enum class Form { floats, pairs, thirds };

// Depths in a unit by which blocks of the depth are cut.
constexpr std::int64_t depths_of_unit(Form form) { return form == Form::pairs ? 2 : 1; }

// Whether any number has been taken apart (split.h) with which sums could be infinite or NaN: of 2^50 and more, an infinity, NaN. (The
// products of smaller ones stay finite over 2^27 depths.) Stays true; what depends on it is only whether NaN is looked for.
template <class I>
inline bool met_large_numbers = false;

}  // namespace twinlens::gemm
