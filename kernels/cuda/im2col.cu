#include "kernels/cuda/device/any.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/im2col.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kPerThread = 4;

// A thread copies a word of a pixel's channels; `channels` counts words. Index is 32 bits wide where all of the result is.
template <class Word, class Index>
__global__ void gather_kernel(ConvGeometry g, Index channels, Index count, const Word* x, Word* y) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= static_cast<std::int64_t>(count)) return;
  const auto i = static_cast<Index>(at);
  const auto kernel_width = static_cast<Index>(g.kernel_width), kernel_height = static_cast<Index>(g.kernel_height);
  const auto out_width = static_cast<Index>(g.out_width), out_height = static_cast<Index>(g.out_height);
  Index rest = i / channels;
  const Index channel = i - rest * channels;
  const std::int64_t kw = rest % kernel_width;
  rest /= kernel_width;
  const std::int64_t kh = rest % kernel_height;
  rest /= kernel_height;
  const std::int64_t ow = rest % out_width;
  rest /= out_width;
  const std::int64_t oh = rest % out_height, b = rest / out_height;
  const std::int64_t h = oh * g.stride - g.padding + kh * g.dilation, w = ow * g.stride - g.padding + kw * g.dilation;
  Word word{};
  if (h >= 0 && h < g.height && w >= 0 && w < g.width) {
    word = x[((b * g.height + h) * g.width + w) * static_cast<std::int64_t>(channels) + channel];
  }
  y[i] = word;
}

template <class Word>
void gather(Stream& stream, const Im2Col& a) {
  const auto words = static_cast<std::int64_t>(sizeof(Word)) / size_of(a.x.dtype);
  const std::int64_t channels = a.g.channels / words, count = a.y.count / words;
  const ElementLaunch geometry = element_launch(count, 1);
  const auto* x = static_cast<const Word*>(a.x.data);
  auto* y = static_cast<Word*>(a.y.data);
  if (count < (std::int64_t{1} << 32)) {
    gather_kernel<Word, unsigned><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.g, static_cast<unsigned>(channels),
                                                                                                   static_cast<unsigned>(count), x, y);
  } else {
    gather_kernel<Word, std::uint64_t><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(
        a.g, static_cast<std::uint64_t>(channels), static_cast<std::uint64_t>(count), x, y);
  }
}

// A thread gathers a pack of a pixel's channels from all windows that saw it, in the order of the kernel's taps.
template <class T>
__global__ void scatter_kernel(Col2Im a, std::int64_t packs, std::int64_t count, bool aligned) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ConvGeometry& g = a.g;
  const Place at = place_of(i, packs), line = place_of(at.row, g.width), picture = place_of(line.row, g.height);
  const std::int64_t w = line.pack, h = picture.pack, b = picture.row, c = g.channels, column = at.pack * kPerThread;
  const T* dy = static_cast<const T*>(a.dy.data);
  float sum[kPerThread] = {}, v[kPerThread];
  for (std::int64_t kh = 0; kh < g.kernel_height; ++kh) {
    const std::int64_t top = h + g.padding - kh * g.dilation;
    if (top < 0 || top % g.stride != 0 || top / g.stride >= g.out_height) continue;
    for (std::int64_t kw = 0; kw < g.kernel_width; ++kw) {
      const std::int64_t left = w + g.padding - kw * g.dilation;
      if (left < 0 || left % g.stride != 0 || left / g.stride >= g.out_width) continue;
      const std::int64_t row = (b * g.out_height + top / g.stride) * g.out_width + left / g.stride;
      load_pack(dy + ((row * g.kernel_height + kh) * g.kernel_width + kw) * c + column, c - column, aligned, v);
#pragma unroll
      for (int k = 0; k < kPerThread; ++k) sum[k] += v[k];
    }
  }
  store_pack(sum, static_cast<T*>(a.dx.data) + at.row * c + column, c - column, aligned);
}

}  // namespace

void launch(Cuda, Stream& stream, const Im2Col& a) {
  if (a.y.count == 0) return;
  const std::int64_t bytes = a.g.channels * size_of(a.x.dtype);
  const auto fits = [&](int word) { return packs_are_aligned(a.x.data, bytes, 1, word) && packs_are_aligned(a.y.data, bytes, 1, word); };
  if (fits(16)) {
    gather<uint4>(stream, a);
  } else if (fits(8)) {
    gather<uint2>(stream, a);
  } else if (fits(4)) {
    gather<unsigned>(stream, a);
  } else {
    gather<unsigned short>(stream, a);
  }
}

void launch(Cuda, Stream& stream, const Col2Im& a) {
  const std::int64_t packs = ceil_div(a.g.channels, kPerThread), count = a.g.batch * a.g.height * a.g.width * packs;
  const ElementLaunch geometry = element_launch(count, 1);
  if (geometry.blocks == 0) return;
  const bool aligned = packs_are_aligned(a.dy.data, a.g.channels, size_of(a.dy.dtype), kPerThread) &&
                       packs_are_aligned(a.dx.data, a.g.channels, size_of(a.dx.dtype), kPerThread);
  visit_cuda_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    scatter_kernel<T><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, packs, count, aligned);
  });
}

}  // namespace twinlens
