#include "twinlens/core/check.h"

#include <algorithm>

#include "twinlens/kernels/scope.h"

namespace twinlens {

void fail(ErrorKind kind, const Where& where, std::string_view rule, std::initializer_list<Named> tensors) {
  std::string text = std::string(where.op) + ": " + std::string(rule);
  const char* separator = "; ";
  for (const Named& named : tensors) {
    text += separator + std::string(named.name) + "=" + describe(named.tensor);
    separator = ", ";
  }
  if (!Scope::path().empty()) text += "; in " + Scope::path();
  std::string_view file = where.file;
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) file.remove_prefix(slash + 1);
  text += "; " + std::string(file) + ":" + std::to_string(where.line);
  switch (kind) {
    case ErrorKind::shape: throw ShapeError(text);
    case ErrorKind::dtype: throw DTypeError(text);
    case ErrorKind::device: throw DeviceError(text);
    case ErrorKind::autograd: throw AutogradError(text);
  }
  throw Error(text);
}

std::string few_of(const std::vector<std::string>& names) {
  constexpr std::size_t most = 8;
  std::string out;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) out += " " + names[i];
  if (names.size() > most) out += " and " + std::to_string(names.size() - most) + " more";
  return out;
}

void check_same_device(const Where& where, std::initializer_list<Named> tensors) {
  const Tensor* first = nullptr;
  for (const Named& named : tensors) {
    if (!named.tensor.defined()) continue;
    if (first == nullptr) first = &named.tensor;
    if (named.tensor.device() != first->device()) fail(ErrorKind::device, where, "all tensors must be on one device", tensors);
  }
}

namespace {
bool computes(DType t, Device device) { return t == DType::f32 || t == DType::bf16 || (t == DType::f16 && device.is_cuda()); }
}  // namespace

DType check_result_dtype(const Where& where, const Named& x, DType asked) {
  if (!computes(asked, x.tensor.device()))
    fail(ErrorKind::dtype, where, "the result must be f32 or bf16 (f16 on CUDA), not " + std::string(name_of(asked)), {x});
  return asked;
}

void check_compute_dtype(const Where& where, std::initializer_list<Named> tensors) {
  for (const Named& named : tensors) {
    if (!named.tensor.defined()) continue;
    const DType t = named.tensor.dtype();
    if (computes(t, named.tensor.device())) continue;
    fail(ErrorKind::dtype, where,
         t == DType::f16 ? "f16 is a storage type on the CPU; convert with .to(DType::f32)" : "must be f32 or bf16", tensors);
  }
}

void check_indices(const Where& where, const Named& indices, std::int64_t limit, std::optional<std::int64_t> ignore) {
  check_dtype(indices.tensor.dtype() == DType::i64, where, std::string(indices.name) + " must be i64", {indices});
  if (indices.tensor.device().is_cuda()) return;
  const Tensor row_major = dense(indices.tensor);
  const std::int64_t* ids = row_major.data<std::int64_t>();
  for (std::int64_t i = 0; i < row_major.count(); ++i) {
    if ((ids[i] >= 0 && ids[i] < limit) || ids[i] == ignore) continue;
    fail(ErrorKind::shape, where,
         "index " + std::to_string(ids[i]) + " at position " + std::to_string(i) + " of " + indices.name + " is outside [0, " +
             std::to_string(limit) + ")",
         {indices});
  }
}

}  // namespace twinlens
