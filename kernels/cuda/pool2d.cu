#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/pixels.cuh"
#include "kernels/cuda/device/stores.cuh"

#include "twinlens/kernels/pool2d.h"

namespace twinlens {
namespace {

using namespace cuda;

// Half-open range of positions along one axis.
struct Range {
  std::int64_t begin, end;
};

// Window positions of output o that lie inside an axis of `size`.
__device__ Range positions_inside(std::int64_t o, std::int64_t size, const PoolWindows& w) {
  const std::int64_t start = o * w.stride - w.padding;
  return {start < 0 ? -start : 0, start + w.kernel > size ? size - start : w.kernel};
}

// Outputs whose windows see input position p.
__device__ Range windows_over(std::int64_t p, std::int64_t outputs, const PoolWindows& w) {
  const std::int64_t last = (p + w.padding) / w.stride + 1;
  const std::int64_t before = p + w.padding - w.kernel;  // the last position at which a window ends too early
  return {before < 0 ? 0 : before / w.stride + 1, last < outputs ? last : outputs};
}

// The pixel and first channel of thread t in a batch of rows x columns pixels of `packs` packs of W channels.
struct Place {
  std::int64_t b, y, x, channel;
};
template <int W>
__device__ Place place_of(std::int64_t t, std::int64_t rows, std::int64_t columns, std::int64_t packs) {
  const std::int64_t pixel = t / packs, row = pixel / columns, b = row / rows;
  return {b, row - b * rows, pixel - row * columns, (t - pixel * packs) * W};
}

__device__ std::int64_t input_at(const PoolWindows& w, std::int64_t b, std::int64_t y, std::int64_t x) {
  return ((b * w.height + y) * w.width + x) * w.channels;
}
__device__ std::int64_t output_at(const PoolWindows& w, std::int64_t b, std::int64_t y, std::int64_t x) {
  return ((b * w.out_height + y) * w.out_width + x) * w.channels;
}
__device__ std::int64_t thread_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

template <class T, int W>
__global__ void __launch_bounds__(256) average_kernel(AvgPool2dForward a, std::int64_t count) {
  if (thread_index() >= count) return;
  const PoolWindows& w = a.windows;
  const Place o = place_of<W>(thread_index(), w.out_height, w.out_width, w.channels / W);
  const T* x = a.x.as<T>() + input_at(w, o.b, o.y * w.stride, o.x * w.stride) + o.channel;
  constexpr int kAhead = 4;  // pixels on their way at a time: a window of 2 x 2
  const std::int64_t pixels = w.kernel * w.kernel;
  float sum[W] = {};
  std::int64_t j = 0;
  for (std::int64_t first = 0; first < pixels; first += kAhead) {
    T pixel[kAhead][W];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= pixels) break;
      load_raw(x + j * w.channels, W, true, pixel[i]);
      if (++j < w.kernel) continue;
      j = 0;
      x += w.width * w.channels;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= pixels) break;
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] += to_float(pixel[i][k]);
    }
  }
  const float scale = 1.0F / static_cast<float>(w.kernel * w.kernel);
#pragma unroll
  for (int k = 0; k < W; ++k) sum[k] *= scale;
  store_whole(sum, static_cast<T*>(a.y) + output_at(w, o.b, o.y, o.x) + o.channel);
}

template <class T, int W>
__global__ void __launch_bounds__(256) average_backward_kernel(AvgPool2dBackward a, std::int64_t count) {
  if (thread_index() >= count) return;
  const PoolWindows& w = a.windows;
  const Place p = place_of<W>(thread_index(), w.height, w.width, w.channels / W);
  const Range rows = windows_over(p.y, w.out_height, w), columns = windows_over(p.x, w.out_width, w);
  float sum[W] = {};
  for (std::int64_t oy = rows.begin; oy < rows.end; ++oy) {
    for (std::int64_t ox = columns.begin; ox < columns.end; ++ox) add_pack(a.dy.as<T>() + output_at(w, p.b, oy, ox) + p.channel, sum);
  }
  const float scale = 1.0F / static_cast<float>(w.kernel * w.kernel);
#pragma unroll
  for (int k = 0; k < W; ++k) sum[k] *= scale;
  store_whole(sum, static_cast<T*>(a.dx) + input_at(w, p.b, p.y, p.x) + p.channel);
}

template <class T, int W>
__global__ void __launch_bounds__(256) maximum_kernel(MaxPool2dForward a, std::int64_t count) {
  if (thread_index() >= count) return;
  const PoolWindows& w = a.windows;
  const Place o = place_of<W>(thread_index(), w.out_height, w.out_width, w.channels / W);
  const Range rows = positions_inside(o.y, w.height, w), columns = positions_inside(o.x, w.width, w);
  float best[W], v[W];
  std::int32_t where[W];
#pragma unroll
  for (int k = 0; k < W; ++k) {
    best[k] = -__builtin_inff();
    where[k] = static_cast<int>(rows.begin * w.kernel + columns.begin);  // stays when the whole window is -inf
  }
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    for (std::int64_t j = columns.begin; j < columns.end; ++j) {
      const std::int64_t at = input_at(w, o.b, o.y * w.stride - w.padding + i, o.x * w.stride - w.padding + j) + o.channel;
      load_pack(a.x.as<T>() + at, W, true, v);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        const bool larger = v[k] > best[k] || (isnan(v[k]) && !isnan(best[k]));
        best[k] = larger ? v[k] : best[k];
        where[k] = larger ? static_cast<int>(i * w.kernel + j) : where[k];
      }
    }
  }
  const std::int64_t out = output_at(w, o.b, o.y, o.x) + o.channel;
  store_whole(best, static_cast<T*>(a.y) + out);
  store_words(where, a.where + out);
}

template <class T, int W>
__global__ void __launch_bounds__(256) maximum_backward_kernel(MaxPool2dBackward a, std::int64_t count) {
  if (thread_index() >= count) return;
  const PoolWindows& w = a.windows;
  const Place p = place_of<W>(thread_index(), w.height, w.width, w.channels / W);
  const Range rows = windows_over(p.y, w.out_height, w), columns = windows_over(p.x, w.out_width, w);
  float sum[W] = {}, v[W];
  std::int32_t where[W];
  for (std::int64_t oy = rows.begin; oy < rows.end; ++oy) {
    for (std::int64_t ox = columns.begin; ox < columns.end; ++ox) {
      const std::int64_t out = output_at(w, p.b, oy, ox) + p.channel;
      const auto here = static_cast<int>((p.y + w.padding - oy * w.stride) * w.kernel + p.x + w.padding - ox * w.stride);
      load_pack(a.dy.as<T>() + out, W, true, v);
      load_raw(a.where + out, W, true, where);
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] += where[k] == here ? v[k] : 0.0F;
    }
  }
  store_whole(sum, static_cast<T*>(a.dx) + input_at(w, p.b, p.y, p.x) + p.channel);
}

// Calls f(T, Channels<W>, blocks, count) for maps of `pixels` pixels, unless there are none.
template <class F>
void for_pixels(DType dtype, std::int64_t pixels, std::int64_t channels, std::initializer_list<const void*> maps, F&& f) {
  visit_cuda_float(dtype, [&]<class T>(TypeTag<T> type) {
    visit_channel_packs<T>(channels, maps, [&]<int W>(Channels<W> packs) {
      const std::int64_t count = pixels * (channels / W);
      const ElementLaunch geometry = element_launch(count, 1);
      if (geometry.blocks != 0) f(type, packs, geometry.blocks, count);
    });
  });
}

std::int64_t outputs_of(const PoolWindows& w) { return w.batch * w.out_height * w.out_width; }
std::int64_t inputs_of(const PoolWindows& w) { return w.batch * w.height * w.width; }

}  // namespace

void launch(Cuda, Stream& stream, const AvgPool2dForward& a) {
  for_pixels(a.x.dtype, outputs_of(a.windows), a.windows.channels, {a.x.data, a.y},
             [&]<class T, int W>(TypeTag<T>, Channels<W>, unsigned blocks, std::int64_t count) {
               average_kernel<T, W><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
             });
}

void launch(Cuda, Stream& stream, const AvgPool2dBackward& a) {
  for_pixels(a.dy.dtype, inputs_of(a.windows), a.windows.channels, {a.dy.data, a.dx},
             [&]<class T, int W>(TypeTag<T>, Channels<W>, unsigned blocks, std::int64_t count) {
               average_backward_kernel<T, W><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
             });
}

void launch(Cuda, Stream& stream, const MaxPool2dForward& a) {
  for_pixels(a.x.dtype, outputs_of(a.windows), a.windows.channels, {a.x.data, a.y, a.where},
             [&]<class T, int W>(TypeTag<T>, Channels<W>, unsigned blocks, std::int64_t count) {
               maximum_kernel<T, W><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
             });
}

void launch(Cuda, Stream& stream, const MaxPool2dBackward& a) {
  for_pixels(a.dy.dtype, inputs_of(a.windows), a.windows.channels, {a.dy.data, a.dx, a.where},
             [&]<class T, int W>(TypeTag<T>, Channels<W>, unsigned blocks, std::int64_t count) {
               maximum_backward_kernel<T, W><<<blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, count);
             });
}

}  // namespace twinlens
