#pragma once
// Packing: a panel is P neighbouring lines (rows of a, columns of b) of one block of the depth, stored word by word, the P lines of a
// word side by side: what the micro-kernel reads from front to back. Lines beyond the matrix and depths beyond its end are zero.
// Where the micro-kernel takes several words of a row at once (TileShape::kRowWords), its panels of a are stored so.

#include "kernels/cpu/gemm/words.h"

namespace twinlens::gemm {

// The words of a panel's line come in steps.
struct Steps {
  std::int64_t depths, words;                                                                             // of a step
  TWINLENS_INLINE std::int64_t words_before(std::int64_t depth) const { return depth / depths * words; }  // of whole steps
  TWINLENS_INLINE std::int64_t words_of(std::int64_t n) const { return words_before(n + depths - 1); }
};

// Lines of an operand: line l at depth d is base[l * line_stride + d * depth_stride], and one of the strides is 1.
struct Lines {
  const void* base;
  std::int64_t line_stride, depth_stride;
};

// Even and odd places of the two halves of a square of words; log2(W) rounds of it transpose the square.
template <int W>
struct Interleave;
template <>
struct Interleave<4> {
  template <class Raw>
  TWINLENS_INLINE static void pair(Raw a, Raw b, Raw& low, Raw& high) {
    low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  }
};
template <>
struct Interleave<8> {
  template <class Raw>
  TWINLENS_INLINE static void pair(Raw a, Raw b, Raw& low, Raw& high) {
    low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
};
template <>
struct Interleave<16> {
  template <class Raw>
  TWINLENS_INLINE static void pair(Raw a, Raw b, Raw& low, Raw& high) {
    low = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    high = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
};

template <int W, class Raw>
TWINLENS_INLINE void transpose(Raw (&x)[W]) {
  for (int round = 1; round < W; round *= 2) {
    Raw y[W];
#pragma GCC unroll 16
    for (int i = 0; i < W / 2; ++i) Interleave<W>::pair(x[i], x[i + W / 2], y[2 * i], y[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) x[i] = y[i];
  }
}

// One panel: `lines` <= width lines and `depths` depths into out[words][width], W lines at a time; words is ceil(depths / Words::kDepths),
// rounded up to a multiple of Step.
template <class I, class Words, int W, int Step>
void pack_panel(const Lines& in, std::int64_t lines, std::int64_t depths, std::int64_t width, float* out) {
  using N = Narrow<I, W>;
  using Raw = typename Vec<N>::Raw;
  constexpr std::int64_t d = Words::kDepths;
  const std::int64_t full = (depths + d - 1) / d, words = (full + Step - 1) / Step * Step;
  for (std::int64_t g = 0; g < width; g += W) {
    const auto* base = static_cast<const typename Words::Element*>(in.base) + g * in.line_stride;
    const std::int64_t left = lines - g;
    if (in.line_stride == 1) {
      for (std::int64_t k = 0; k < words; ++k) {
        const Raw v = left <= 0 || k >= full
                          ? Raw{}
                          : Words::template across<N>(base + k * d * in.depth_stride, in.depth_stride, depths - k * d, left);
        Vec<N>(v).store(out + k * width + g);
      }
      continue;
    }
    for (std::int64_t k = 0; k < words; k += W) {
      Raw square[W];
#pragma GCC unroll 16
      for (int l = 0; l < W; ++l) {
        square[l] = l < left ? Words::template along_depth<N>(base + l * in.line_stride + k * d, depths - k * d) : Raw{};
      }
      transpose<W>(square);
      const std::int64_t count = words - k < W ? words - k : W;
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        if (i < count) Vec<N>(square[i]).store(out + (k + i) * width + g);
      }
    }
  }
}

// The same lines into out[words / W][width][W]: W words of a line side by side.
template <class I, class Words, int W>
void pack_row_words(const Lines& in, std::int64_t lines, std::int64_t depths, std::int64_t width, float* out) {
  using N = Narrow<I, W>;
  using Raw = typename Vec<N>::Raw;
  constexpr std::int64_t d = Words::kDepths;
  for (std::int64_t k = 0; k * d < depths; k += W, out += W * width) {
    for (std::int64_t g = 0; g < width; g += W) {
      const auto* base = static_cast<const typename Words::Element*>(in.base) + g * in.line_stride + k * d * in.depth_stride;
      const std::int64_t left = lines - g, depths_left = depths - k * d;
      Raw square[W];  // of a line each
      if (in.line_stride == 1) {
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) {
          square[i] = left <= 0 || i * d >= depths_left
                          ? Raw{}
                          : Words::template across<N>(base + i * d * in.depth_stride, in.depth_stride, depths_left - i * d, left);
        }
        transpose<W>(square);
      } else {
#pragma GCC unroll 16
        for (int l = 0; l < W; ++l) {
          square[l] = l < left ? Words::template along_depth<N>(base + l * in.line_stride, depths_left) : Raw{};
        }
      }
#pragma GCC unroll 16
      for (int l = 0; l < W; ++l) Vec<N>(square[l]).store(out + (g + l) * W);
    }
  }
}

using PackPanel = void (*)(const Lines& in, std::int64_t lines, std::int64_t depths, std::int64_t width, float* out);

// How an operand of this type is packed, W lines at a time, into words of one depth (rounded to bf16 if `rounded`) or pairs. Step: what
// the words are padded to a multiple of.
template <class I, int W, Form F, int Step>
PackPanel pack_function(DType dtype, bool rounded) {
  if constexpr (F == Form::pairs) {
    return dtype == DType::bf16 ? pack_panel<I, PairWords<bf16>, W, Step> : pack_panel<I, PairWords<float>, W, Step>;
  } else {
    if (dtype == DType::bf16) return pack_panel<I, FloatWords<bf16, false>, W, Step>;
    if constexpr (!I::kBf16Dot) {
      if (rounded) return pack_panel<I, FloatWords<float, true>, W, Step>;
    }
    return pack_panel<I, FloatWords<float, false>, W, Step>;
  }
}
// The same for an operand whose words lie side by side in a row; pairs.
template <class I, int W>
PackPanel pack_row_words_function(DType dtype) {
  return dtype == DType::bf16 ? pack_row_words<I, PairWords<bf16>, W> : pack_row_words<I, PairWords<float>, W>;
}

}  // namespace twinlens::gemm
