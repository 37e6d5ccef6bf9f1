#include "kernels/cuda/blas.h"

#include <array>
#include <cstdio>
#include <cublasLt.h>
#include <map>
#include <mutex>
#include <string>

#include "twinlens/kernels/error.h"

namespace twinlens::cuda {
namespace {

void check_blas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string(what) + " failed: " + cublasLtGetStatusString(status) +
                    "; matmul; run with CUBLASLT_LOG_LEVEL=2 to see the arguments");
}

cudaDataType_t native_type(DType t) { return t == DType::bf16 ? CUDA_R_16BF : t == DType::f16 ? CUDA_R_16F : CUDA_R_32F; }

// The power of two, up to 16 bytes, that divides an address.
std::int64_t alignment_of(const void* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  std::int64_t alignment = 16;
  while (at % static_cast<std::uintptr_t>(alignment) != 0) alignment /= 2;
  return alignment;
}

// Row-major (rows, cols) is column-major (cols, rows); a single row may have any stride.
cublasLtMatrixLayoutOpaque_t layout_of(const BlasMatrix& m, DType type, std::int64_t batch) {
  cublasLtMatrixLayoutOpaque_t layout;
  const std::int64_t stride = m.rows <= 1 && m.stride < m.cols ? m.cols : m.stride;
  check_blas(
      cublasLtMatrixLayoutInit(&layout, native_type(type), static_cast<std::uint64_t>(m.cols), static_cast<std::uint64_t>(m.rows), stride),
      "cublasLtMatrixLayoutInit");
  if (batch > 1) {
    const auto count = static_cast<std::int32_t>(batch);
    check_blas(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), "batch count");
    check_blas(
        cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m.batch_stride, sizeof m.batch_stride),
        "batch stride");
  }
  return layout;
}

template <class T>
void set(cublasLtMatmulDescOpaque_t& d, cublasLtMatmulDescAttributes_t attribute, T value) {
  check_blas(cublasLtMatmulDescSetAttribute(&d, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}

cublasLtEpilogue_t native_epilogue(BlasEpilogue e) {
  switch (e) {
    case BlasEpilogue::none: return CUBLASLT_EPILOGUE_DEFAULT;
    case BlasEpilogue::bias: return CUBLASLT_EPILOGUE_BIAS;
    case BlasEpilogue::gelu: return CUBLASLT_EPILOGUE_GELU;
    case BlasEpilogue::gelu_bias: return CUBLASLT_EPILOGUE_GELU_BIAS;
    case BlasEpilogue::gelu_aux: return CUBLASLT_EPILOGUE_GELU_AUX;
    case BlasEpilogue::gelu_aux_bias: return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

// In cuBLASLt's column-major eyes the product is d^T = b^T a^T: our b is its first operand.
cublasLtMatmulDescOpaque_t description_of(const BlasProduct& p) {
  cublasLtMatmulDescOpaque_t d;
  check_blas(cublasLtMatmulDescInit(&d, p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescInit");
  set(d, CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d, CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, native_epilogue(p.epilogue));
  if (p.bias != nullptr) {
    set(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    set(d, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, native_type(p.d_type));
  }
  if (p.aux != nullptr) {
    set(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.aux);
    set(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.aux_stride);
  }
  return d;
}

struct Algorithm {
  bool found = false;
  cublasLtMatmulAlgo_t native{};
};

// Everything that a choice depends on.
using Key = std::array<std::int64_t, 31>;

Key key_of(int device, const BlasProduct& p) {
  Key key{};
  std::size_t n = 0;
  const auto put = [&](auto x) { key[n++] = static_cast<std::int64_t>(x); };
  for (const BlasMatrix* m : {&p.a, &p.b, &p.c, &p.d}) {
    put(m->stride);
    put(m->batch_stride);
    put(alignment_of(m->data));
    put(m->data == p.d.data);
  }
  put(device);
  put(p.type);
  put(p.d_type);
  put(p.tf32);
  put(p.batch);
  put(p.d.rows);
  put(p.d.cols);
  put(p.a.transposed ? p.a.rows : p.a.cols);
  put(p.a.transposed);
  put(p.b.transposed);
  put(p.beta != 0.0F);
  put(p.epilogue);
  put(p.aux_stride);
  put(alignment_of(p.bias));
  put(alignment_of(p.aux));
  return key;
}

// One handle and one memory of choices per device, for the life of the process.
struct Device {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Algorithm> algorithms;
  int without_algorithm = 0;
};

struct Devices {
  std::mutex mutex;
  std::map<int, Device> by_index;
};
Devices& devices() {
  static auto* all = new Devices();
  return *all;
}

struct Call {
  cublasLtMatmulDescOpaque_t description;
  cublasLtMatrixLayoutOpaque_t a, b, c, d;
};

Algorithm choose(cublasLtHandle_t handle, Call& call, const BlasProduct& p, std::size_t workspace_bytes) {
  cublasLtMatmulPreferenceOpaque_t preference;
  check_blas(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  // Parts of a long sum are added in f32 and in order, from the workspace.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(alignment_of(p.b.data)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(alignment_of(p.a.data)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(alignment_of(p.c.data)));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(alignment_of(p.d.data)));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, &call.description, &call.a, &call.b, &call.c, &call.d, &preference, 1, &result, &count);
  Algorithm chosen;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return chosen;
  check_blas(status, "cublasLtMatmulAlgoGetHeuristic");
  chosen.found = count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  chosen.native = result.algo;
  return chosen;
}

constexpr std::size_t kMostChoices = 1 << 16;  // ragged batches have ever new shapes

const char* name_of(BlasEpilogue e) {
  switch (e) {
    case BlasEpilogue::none: return "nothing";
    case BlasEpilogue::bias: return "bias";
    case BlasEpilogue::gelu: return "gelu";
    case BlasEpilogue::gelu_bias: return "bias and gelu";
    case BlasEpilogue::gelu_aux: return "gelu of a kept argument";
    case BlasEpilogue::gelu_aux_bias: return "bias and gelu of a kept argument";
  }
  return "";
}

// The result is right all the same, but the other ways are slower, the plain kernel by far. Not for ever: ragged batches, see above.
void warn_without_algorithm(const BlasProduct& p, int said) {
  constexpr int kMost = 20;
  if (said >= kMost) return;
  const auto n = [](std::int64_t x) { return static_cast<long long>(x); };
  std::fprintf(stderr,
               "warning: cuBLASLt has no algorithm for %lld x %lld x %lld of %s into %s, fused with %s%s; matmul, done by slower kernels; "
               "run with CUBLASLT_LOG_LEVEL=2 to see why, or make widths multiples of 8%s\n",
               n(p.d.rows), n(p.d.cols), n(p.a.transposed ? p.a.rows : p.a.cols), name_of(p.type), name_of(p.d_type), name_of(p.epilogue),
               p.c.data != p.d.data ? " and a residual" : "", said + 1 == kMost ? " (no more of this is said)" : "");
}

}  // namespace

bool blas_multiply(cudaStream_t stream, int device, const BlasProduct& p, void* workspace, std::size_t workspace_bytes) {
  if (p.batch > 0x7FFFFFFF) return false;
  Call call{description_of(p), layout_of(p.b, p.type, p.batch), layout_of(p.a, p.type, p.batch), layout_of(p.c, p.d_type, p.batch),
            layout_of(p.d, p.d_type, p.batch)};
  cublasLtHandle_t handle = nullptr;
  Algorithm algorithm;
  {
    Devices& all = devices();
    const std::lock_guard lock(all.mutex);
    Device& own = all.by_index[device];
    if (own.handle == nullptr) check_blas(cublasLtCreate(&own.handle), "cublasLtCreate");
    handle = own.handle;
    if (own.algorithms.size() > kMostChoices) own.algorithms.clear();
    const Key key = key_of(device, p);
    const auto known = own.algorithms.find(key);
    if (known != own.algorithms.end()) {
      algorithm = known->second;
    } else {
      algorithm = own.algorithms.emplace(key, choose(handle, call, p, workspace_bytes)).first->second;
      if (!algorithm.found) warn_without_algorithm(p, own.without_algorithm++);
    }
  }
  if (!algorithm.found) return false;
  check_blas(cublasLtMatmul(handle, &call.description, &p.alpha, p.b.data, &call.a, p.a.data, &call.b, &p.beta, p.c.data, &call.c,
                            const_cast<void*>(p.d.data), &call.d, &algorithm.native, workspace, workspace_bytes, stream),
             "cublasLtMatmul");
  return true;
}

}  // namespace twinlens::cuda
