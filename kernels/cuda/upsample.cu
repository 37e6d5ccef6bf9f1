#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/pixels.cuh"

#include "twinlens/kernels/upsample.h"

namespace twinlens {
namespace {

using namespace cuda;

// Elements are only moved, so words will do for any type. A thread for a word of y.
template <class Word>
__global__ void __launch_bounds__(256)
    forward_kernel(const Word* x, Word* y, UpsampleForward a, std::int64_t words_of_pixel, std::int64_t count) {
  const std::int64_t t = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (t >= count) return;
  const std::int64_t pixel = t / words_of_pixel, at = t - pixel * words_of_pixel, wide = a.width * a.factor;
  const std::int64_t row = pixel / wide, column = pixel - row * wide;
  y[t] = x[(row / a.factor * a.width + column / a.factor) * words_of_pixel + at];
}

// A thread for W channels of a pixel of dx.
template <class T, int W>
__global__ void __launch_bounds__(256) backward_kernel(UpsampleBackward a, std::int64_t count) {
  const std::int64_t t = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (t >= count) return;
  const std::int64_t c = a.channels, packs = c / W, p = t / packs, channel = (t - p * packs) * W;
  const std::int64_t row = p / a.width, column = p - row * a.width, wide = a.width * a.factor;
  const T* dy = a.dy.as<T>() + (row * a.factor * wide + column * a.factor) * c + channel;
  float sum[W] = {};
  for (std::int64_t i = 0; i < a.factor; ++i) {
    for (std::int64_t j = 0; j < a.factor; ++j) add_pack(dy + (i * wide + j) * c, sum);
  }
  store_pack(sum, static_cast<T*>(a.dx) + p * c + channel, W, true);
}

}  // namespace

void launch(Cuda, Stream& stream, const UpsampleForward& a) {
  const std::int64_t bytes = a.channels * size_of(a.x.dtype);
  if (bytes == 0) return;
  const std::int64_t word = common_word(a.x.data, a.y, bytes), words = bytes / word;
  const std::int64_t count = a.rows * a.width * a.factor * a.factor * words;
  const ElementLaunch geometry = element_launch(count, 1);
  if (geometry.blocks == 0) return;
  visit_word(word, [&]<class Word>(TypeTag<Word>) {
    forward_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<Word>(), static_cast<Word*>(a.y), a, words,
                                                                                    count);
  });
}

void launch(Cuda, Stream& stream, const UpsampleBackward& a) {
  visit_cuda_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    visit_channel_packs<T>(a.channels, {a.dy.data, a.dx}, [&]<int W>(Channels<W>) {
      const std::int64_t count = a.rows * a.width * (a.channels / W);
      const ElementLaunch geometry = element_launch(count, 1);
      if (geometry.blocks == 0) return;
      backward_kernel<T, W><<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
    });
  });
}

}  // namespace twinlens
