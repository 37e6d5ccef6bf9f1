#include "kernels/cuda/blas.h"
#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/any.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/short_functions.cuh"
#include "kernels/cuda/device/window_product.cuh"
#include "kernels/cuda/matmul_plan.h"

#include "twinlens/kernels/matmul.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kPerThread = 8;

bool aligned_rows(const void* data, std::int64_t stride, DType t) {
  return data == nullptr || packs_are_aligned(data, stride, size_of(t), kPerThread);
}

// --- operands in the type of the product -----------------------------------------------------------------------------------------------
struct Convert {
  const void* from;
  DType from_type;
  void* to;
  DType to_type;
  std::int64_t rows, cols, from_stride, to_stride;  // rows of all items together
  std::int64_t rows_per_item, from_item;            // elements from one item to the next
  bool aligned;
};

__global__ void convert_kernel(Convert c, std::int64_t packs, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place at = place_of(i, packs);
  const std::int64_t column = at.pack * kPerThread, left = c.cols - column;
  const std::int64_t item = c.from_item == 0 ? 0 : at.row / c.rows_per_item;
  const std::int64_t from = item * c.from_item + (at.row - item * c.rows_per_item) * c.from_stride + column;
  float v[kPerThread];
  load_any(c.from, c.from_type, from, left, c.aligned, v);
  store_any(v, c.to, c.to_type, at.row * c.to_stride + column, left, c.aligned);
}

void convert(Stream& stream, Convert c) {
  c.aligned = aligned_rows(c.from, c.from_stride, c.from_type) && aligned_rows(c.from, c.from_item, c.from_type) &&
              aligned_rows(c.to, c.to_stride, c.to_type);
  const std::int64_t packs = ceil_div(c.cols, kPerThread), count = c.rows * packs;
  const ElementLaunch geometry = element_launch(count, 1);
  if (geometry.blocks == 0) return;
  convert_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(c, packs, count);
}

// The operand as cuBLASLt reads it, converted first where that is needed.
BlasMatrix operand_of(Stream& stream, const MatmulOperand& m, const StoredMatrix& s, bool converted, DType type, void* scratch) {
  if (!converted) return {m.data, s.rows, s.cols, m.stride, s.items == 1 ? 0 : m.batch_stride, m.transposed};
  const std::int64_t stride = converted_stride(s);
  convert(stream,
          {m.data, m.dtype, scratch, type, s.items * s.rows, s.cols, m.stride, stride, s.rows, s.items == 1 ? 0 : m.batch_stride, false});
  return {scratch, s.rows, s.cols, stride, s.items == 1 ? 0 : s.rows * stride, m.transposed};
}

// --- what cuBLASLt has no epilogue for ---------------------------------------------------------------------------------------------------
// c = activation(sums + bias) + residual, keeping `pre`. sums may be c or pre: a thread reads its pack before it writes.
struct Finish {
  const void* sums;
  DType sums_type;
  std::int64_t rows, cols, sums_stride;
  const float* bias;
  Activation activation;
  Rows pre, c;
  ConstRows residual;
  bool aligned;
};

__global__ void __launch_bounds__(256) finish_kernel(Finish f, std::int64_t packs, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Place at = place_of(i, packs);
  const std::int64_t column = at.pack * kPerThread, left = f.cols - column;
  float v[kPerThread], other[kPerThread];
  load_any(f.sums, f.sums_type, at.row * f.sums_stride + column, left, f.aligned, v);
  if (f.bias != nullptr) {
    load_pack(f.bias + column, left, f.aligned, other);
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) v[k] += other[k];
  }
  if (f.pre.data != nullptr) store_any(v, f.pre.data, f.pre.dtype, at.row * f.pre.stride + column, left, f.aligned);
  if (f.c.dtype != DType::f32) {
    apply_short_activation(f.activation, v);
  } else {
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) v[k] = activate(f.activation, v[k]);
  }
  if (f.residual.data != nullptr) {
    load_any(f.residual.data, f.residual.dtype, at.row * f.residual.stride + column, left, f.aligned, other);
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) v[k] += other[k];
  }
  store_any(v, f.c.data, f.c.dtype, at.row * f.c.stride + column, left, f.aligned);
}

void finish(Stream& stream, Finish f) {
  f.aligned = aligned_rows(f.sums, f.sums_stride, f.sums_type) && aligned_rows(f.bias, 0, DType::f32) &&
              aligned_rows(f.pre.data, f.pre.stride, f.pre.dtype) && aligned_rows(f.c.data, f.c.stride, f.c.dtype) &&
              aligned_rows(f.residual.data, f.residual.stride, f.residual.dtype);
  const std::int64_t packs = ceil_div(f.cols, kPerThread), count = f.rows * packs;
  const ElementLaunch geometry = element_launch(count, 1);
  finish_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(f, packs, count);
}

// --- the plain product, for what cuBLASLt does not take (a depth of 0, odd layouts)
// -------------------------------------------------------
constexpr int kTile = 16;

struct Plain {
  MatmulOperand a, b;
  DType type;
  void* d;
  DType d_type;
  std::int64_t rows, cols, depth, d_stride, d_item, batch;
  float alpha;
  bool accumulate;
};

__device__ float element_of(const MatmulOperand& m, DType type, std::int64_t item, std::int64_t row, std::int64_t col) {
  const std::int64_t at = item * m.batch_stride + (m.transposed ? col * m.stride + row : row * m.stride + col);
  float v[1];
  load_any(m.data, m.dtype, at, 1, false, v);
  return rounded_to(type, v[0]);
}

__global__ void plain_kernel(Plain p, std::int64_t tiles_across, std::int64_t tiles) {
  __shared__ float a[kTile][kTile + 1], b[kTile][kTile + 1];
  const std::int64_t item = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const std::int64_t row = tile / tiles_across * kTile + threadIdx.y, col = tile % tiles_across * kTile + threadIdx.x;
  float sum = 0.0F;
  for (std::int64_t k = 0; k < p.depth; k += kTile) {
    a[threadIdx.y][threadIdx.x] = row < p.rows && k + threadIdx.x < p.depth ? element_of(p.a, p.type, item, row, k + threadIdx.x) : 0.0F;
    b[threadIdx.y][threadIdx.x] = col < p.cols && k + threadIdx.y < p.depth ? element_of(p.b, p.type, item, k + threadIdx.y, col) : 0.0F;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kTile; ++j) sum += a[threadIdx.y][j] * b[j][threadIdx.x];
    __syncthreads();
  }
  if (row >= p.rows || col >= p.cols) return;
  const std::int64_t at = item * p.d_item + row * p.d_stride + col;
  float v[1];
  sum *= p.alpha;
  if (p.accumulate) {
    load_any(p.d, p.d_type, at, 1, false, v);
    sum += v[0];
  }
  v[0] = sum;
  store_any(v, p.d, p.d_type, at, 1, false);
}

void multiply_plainly(Stream& stream, const Plain& p) {
  const std::int64_t across = ceil_div(p.cols, kTile), tiles = across * ceil_div(p.rows, kTile);
  plain_kernel<<<static_cast<unsigned>(tiles * p.batch), dim3(kTile, kTile), 0, native(stream)>>>(p, across, tiles);
}

// --- products with windows ---------------------------------------------------------------------------------------------------------------
// c = the sums of all parts, in their order.
__global__ void add_parts_kernel(const float* parts, std::int64_t count, std::int64_t part_size, Rows c, bool aligned, std::int64_t packs) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= c.rows * packs) return;
  const Place at = place_of(i, packs);
  const std::int64_t column = at.pack * kPerThread, left = c.cols - column;
  float sum[kPerThread] = {}, v[kPerThread];
  for (std::int64_t part = 0; part < count; ++part) {
    load_pack(parts + part * part_size + at.row * c.cols + column, left, aligned, v);
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) sum[k] += v[k];
  }
  store_any(sum, c.data, c.dtype, at.row * c.stride + column, left, aligned);
}

template <class T, class A, class B, int kRows, int kCols, bool kTurned>
void launch_tiles(Stream& stream, const typename A::Matrix& a, const typename B::Matrix& b, const windows::Result& c, const WindowLaunch& l,
                  std::int64_t shared_bytes) {
  const auto kernel = windows::product_kernel<T, A, B, kRows, kCols, kTurned>;
  allow_shared(stream, kernel, shared_bytes);
  const std::int64_t part_size = l.parts > 1 ? c.rows * c.cols * static_cast<std::int64_t>(sizeof(float)) : 0;
  kernel<<<static_cast<unsigned>(l.blocks()), WindowLaunch::kThreads, static_cast<std::size_t>(shared_bytes), native(stream)>>>(
      a, b, c, part_size, windows::Cut{l.tiles_across, l.tiles, l.steps, l.steps_per_part});
}

// `other` is the operand that is not the windows.
template <class T>
void multiply_windows(Stream& stream, const Matmul& m, const BlasMatrix& other, const windows::Result& c, const WindowLaunch& l) {
  using windows::RowsWalk, windows::WindowWalk;
  const windows::StoredRows rows{other.data, other.stride, other.rows, other.cols};
  const WindowForm form = window_form(m);
  const std::int64_t bytes = window_shared_bytes(form, l);
  if (form == WindowForm::forward) {
    const windows::Map map = windows::map_of(m.a.data, m.a.windows);
    const auto go = [&]<int kCols>() { launch_tiles<T, WindowWalk<T>, RowsWalk<T>, 128, kCols, false>(stream, map, rows, c, l, bytes); };
    l.tile_cols == 32 ? go.template operator()<32>() : l.tile_cols == 64 ? go.template operator()<64>() : go.template operator()<128>();
  } else {
    const windows::Map map = windows::map_of(m.b.data, m.b.windows);
    const auto go = [&]<int kRows>() { launch_tiles<T, RowsWalk<T>, WindowWalk<T>, kRows, 128, true>(stream, rows, map, c, l, bytes); };
    l.tile_rows == 32 ? go.template operator()<32>() : l.tile_rows == 64 ? go.template operator()<64>() : go.template operator()<128>();
  }
}

void multiply_windows(Stream& stream, const Matmul& m, const MatmulPlan& p, const BlasMatrix& other) {
  const WindowLaunch l = window_launch(window_form(m), m.c.rows, m.c.cols, m.depth);
  windows::Result c{m.c.data, m.c.dtype, m.c.rows, m.c.cols, m.c.stride, false};
  if (l.parts > 1) c = {m.workspace, DType::f32, m.c.rows, m.c.cols, m.c.cols, false};
  c.aligned = packs_are_aligned(c.data, c.stride, size_of(c.dtype), c.dtype == DType::f32 ? 2 : kPerThread);
  p.type == DType::bf16 ? multiply_windows<bf16>(stream, m, other, c, l) : multiply_windows<f16>(stream, m, other, c, l);
  if (l.parts == 1) return;
  const std::int64_t packs = ceil_div(m.c.cols, kPerThread);
  const bool aligned = m.c.cols % kPerThread == 0 && aligned_rows(m.c.data, m.c.stride, m.c.dtype);
  add_parts_kernel<<<element_launch(m.c.rows * packs, 1).blocks, ElementLaunch::kThreads, 0, native(stream)>>>(
      static_cast<const float*>(m.workspace), l.parts, m.c.rows * m.c.cols, m.c, aligned, packs);
}

// --- one product -------------------------------------------------------------------------------------------------------------------------
// What of the epilogue cuBLASLt does, and what is left.
struct Epilogue {
  bool bias = false, residual = false, gelu = false;
};

Epilogue native_epilogue(const Matmul& m, const MatmulPlan& p) {
  Epilogue e;
  if (m.batch != 1 || p.sums_in_scratch) return e;
  e.bias = m.bias != nullptr;
  e.residual = m.residual.data != nullptr && m.activation == Activation::none && !p.sums_in_pre && m.residual.dtype == m.c.dtype &&
               (m.residual.stride >= m.c.cols || m.c.rows == 1);
  // cuBLASLt's GELU is the tanh form, with a tanh of about 11 bits: right for results of two bytes only. It keeps the argument in words.
  e.gelu = m.activation == Activation::gelu_tanh && m.residual.data == nullptr && m.c.dtype != DType::f32 &&
           (m.pre.data == nullptr || (p.sums_in_pre && aligned_rows(m.pre.data, m.pre.stride, m.pre.dtype)));
  return e;
}

BlasEpilogue blas_epilogue(const Epilogue& e, bool keeps_argument) {
  if (!e.gelu) return e.bias ? BlasEpilogue::bias : BlasEpilogue::none;
  if (keeps_argument) return e.bias ? BlasEpilogue::gelu_aux_bias : BlasEpilogue::gelu_aux;
  return e.bias ? BlasEpilogue::gelu_bias : BlasEpilogue::gelu;
}

char* bytes_at(void* base, std::int64_t at) { return static_cast<char*>(base) + at; }

// cuBLASLt adds a bias of the result's type.
const void* bias_for_blas(Stream& stream, const Matmul& m, const MatmulPlan& p) {
  if (p.sums_type == DType::f32 && packs_are_aligned(m.bias, 0, sizeof(float), 4)) return m.bias;
  void* bias = bytes_at(m.scratch, p.bias_at);
  convert(stream, {m.bias, DType::f32, bias, p.sums_type, 1, m.c.cols, m.c.cols, m.c.cols, 1, 0, false});
  return bias;
}

struct Launch {
  Stream& stream;
  const Matmul& m;
  const MatmulPlan& p;
  BlasMatrix a, b;
  Rows sums;
  std::int64_t sums_item;

  // False when cuBLASLt does not do this.
  bool multiply(const Epilogue& e) const {
    BlasProduct product;
    product.type = p.type;
    product.tf32 = m.compute == Compute::tf32;
    product.a = a;
    product.b = b;
    const Rows& d = e.gelu ? m.c : sums;
    product.d = {d.data, m.c.rows, m.c.cols, d.stride, sums_item, false};
    product.c = product.d;
    product.d_type = p.sums_type;
    product.batch = m.batch;
    product.alpha = m.alpha;
    product.beta = m.accumulate || e.residual ? 1.0F : 0.0F;
    if (e.residual) product.c = {m.residual.data, m.c.rows, m.c.cols, m.residual.stride, 0, false};
    product.epilogue = blas_epilogue(e, m.pre.data != nullptr);
    if (e.bias) product.bias = bias_for_blas(stream, m, p);
    if (e.gelu && m.pre.data != nullptr) {
      product.aux = m.pre.data;
      product.aux_stride = m.pre.stride;
    }
    return blas_multiply(native(stream), stream.device().index, product, m.workspace, static_cast<std::size_t>(kMatmulWorkspace));
  }
};

}  // namespace

void launch(Cuda, Stream& stream, const Matmul& m) {
  if (m.c.rows == 0 || m.c.cols == 0 || m.batch == 0) return;
  const MatmulPlan p = matmul_plan(m);
  if (m.b.is_windows())
    return multiply_windows(stream, m, p, operand_of(stream, m.a, p.a, p.convert_a, p.type, bytes_at(m.scratch, p.a_at)));
  if (m.a.is_windows())
    return multiply_windows(stream, m, p, operand_of(stream, m.b, p.b, p.convert_b, p.type, bytes_at(m.scratch, p.b_at)));
  Rows sums = p.sums_in_pre ? m.pre : m.c;
  std::int64_t sums_item = m.c_batch_stride;
  if (p.sums_in_scratch) {
    sums = {bytes_at(m.scratch, p.sums_at), DType::f32, m.c.rows, m.c.cols, m.c.cols, nullptr};
    sums_item = m.c.rows * m.c.cols;
  }
  Epilogue done;
  bool multiplied = false;
  if (m.depth > 0) {
    const Launch call{stream,
                      m,
                      p,
                      operand_of(stream, m.a, p.a, p.convert_a, p.type, bytes_at(m.scratch, p.a_at)),
                      operand_of(stream, m.b, p.b, p.convert_b, p.type, bytes_at(m.scratch, p.b_at)),
                      sums,
                      sums_item};
    done = native_epilogue(m, p);
    multiplied = call.multiply(done);
    if (!multiplied && (done.bias || done.residual || done.gelu)) {
      done = Epilogue{};
      multiplied = call.multiply(done);
    }
  }
  if (!multiplied) {
    done = Epilogue{};
    multiply_plainly(stream, {m.a, m.b, p.type, sums.data, p.sums_type, m.c.rows, m.c.cols, m.depth, sums.stride, sums_item, m.batch,
                              m.alpha, m.accumulate});
  }
  if (done.gelu) return;
  const bool bias_left = m.bias != nullptr && !done.bias, residual_left = m.residual.data != nullptr && !done.residual;
  const bool pre_left = m.pre.data != nullptr && (!p.sums_in_pre || bias_left);
  if (!p.sums_in_scratch && !p.sums_in_pre && !bias_left && !residual_left && !pre_left && m.activation == Activation::none) return;
  // A batch has no epilogue, but its sums may have to leave the scratch; its c is then dense.
  const std::int64_t rows = m.batch * m.c.rows;
  finish(stream, {sums.data, p.sums_type, rows, m.c.cols, sums.stride, bias_left ? m.bias : nullptr, m.activation,
                  pre_left ? m.pre : Rows{}, m.c, residual_left ? m.residual : ConstRows{}, false});
}

}  // namespace twinlens
