#pragma once
// check(): the one way an op refuses its arguments. The message is `op: rule; name=shape dtype device, ...; in scope; file:line`, and is
// only put together when the rule is broken.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

// Where a check stands. (clang 14 has no std::source_location.)
struct Where {
  const char* op;
  const char* file;
  int line;
  Where(const char* name, const char* f = __builtin_FILE(), int l = __builtin_LINE()) : op(name), file(f), line(l) {}
};

struct Named {
  const char* name;
  const Tensor& tensor;
};

enum class ErrorKind { shape, dtype, device, autograd };

[[noreturn]] void fail(ErrorKind kind, const Where& where, std::string_view rule, std::initializer_list<Named> tensors = {});

inline void check(bool ok, const Where& where, std::string_view rule, std::initializer_list<Named> tensors = {}) {
  if (!ok) fail(ErrorKind::shape, where, rule, tensors);
}
inline void check_dtype(bool ok, const Where& where, std::string_view rule, std::initializer_list<Named> tensors = {}) {
  if (!ok) fail(ErrorKind::dtype, where, rule, tensors);
}
// " a b c and 4 more": of many names the first few, each with a blank before it.
std::string few_of(const std::vector<std::string>& names);
// Every defined tensor is on the device of the first.
void check_same_device(const Where& where, std::initializer_list<Named> tensors);
// Floating dtypes that CPU kernels compute in (f32, bf16); on CUDA f16 too.
void check_compute_dtype(const Where& where, std::initializer_list<Named> tensors);
// The dtype that was asked of a result, which a kernel on x's device must be able to write.
DType check_result_dtype(const Where& where, const Named& x, DType asked);
// i64, every element in [0, limit) or equal to `ignore`: else a ShapeError names the index, its row-major position and the limit. Indices
// on CUDA are not looked at, which would wait for the device.
void check_indices(const Where& where, const Named& indices, std::int64_t limit, std::optional<std::int64_t> ignore = {});

}  // namespace twinlens
