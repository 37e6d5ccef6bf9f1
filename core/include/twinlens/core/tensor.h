#pragma once
// Tensor: a cheap shared handle. Copying a Tensor shares its elements and its place on the tape; clone() copies the elements.
// `Tensor{}` means absent (no bias, no mask); only defined() may be asked of it.
//
// Shape and strides belong to the handle's state, elements to a Storage that views share. reshape (of a dense tensor),
// transpose, permute, slice, select and expand are views. In-place functions end in `_`; they are refused on a leaf that wants a
// gradient unless under NoGrad, and they raise the storage's version, so that a tensor saved for backward and then changed is an error.
//
// Threads: handles may be read from several threads; a tensor may be written by one thread at a time.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "twinlens/core/shape.h"
#include "twinlens/kernels/device.h"
#include "twinlens/kernels/dtype.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

class Node;
struct TensorState;

struct Storage {
  Memory memory;
  std::uint32_t version = 0;  // raised by every in-place write
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(std::shared_ptr<TensorState> state) : state_(std::move(state)) {}

  bool defined() const { return state_ != nullptr; }
  const Shape& shape() const;
  const Shape& strides() const;
  int rank() const { return shape().rank(); }
  std::int64_t size(int d) const { return shape()[d]; }
  std::int64_t count() const { return shape().count(); }
  DType dtype() const;
  Device device() const;
  bool is_dense() const;  // row-major without gaps

  // --- elements -------------------------------------------------------------------------------------------------------------------
  void* raw() const;  // first element
  // CPU only, not of bf16 and f16 (raw(), or to(DType::f32)); throws DTypeError / DeviceError when T or the device does not fit. After
  // writing through it to a tensor that an op has saved for its gradient, call mark_written(): backward() then refuses it.
  template <class T>
  T* data() const;
  float item() const;                    // the only element, as float
  std::vector<float> to_vector() const;  // row-major copy on the host, converted to float
  std::vector<std::int64_t> to_ints() const;

  // --- views (recorded on the tape) -----------------------------------------------------------------------------------------------
  Tensor reshape(Shape shape) const;  // one size may be -1; a view of a dense tensor, else of a copy
  Tensor transpose(int a, int b) const;
  Tensor permute(const std::vector<int>& order) const;
  Tensor slice(int d, std::int64_t begin, std::int64_t end) const;
  Tensor select(int d, std::int64_t index) const;  // drops dimension d
  Tensor unsqueeze(int d) const;
  Tensor squeeze(int d) const;
  Tensor expand(const Shape& shape) const;  // broadcast by stride 0

  // --- copies (recorded on the tape) ----------------------------------------------------------------------------------------------
  Tensor to(DType dtype) const;  // itself when nothing changes
  Tensor to(Device device) const;
  Tensor clone() const;

  // --- in place (never recorded: but under NoGrad, neither this tensor nor `from` may want a gradient) ------------------------------
  Tensor& fill_(double value);
  Tensor& copy_(const Tensor& from);  // shape equal, dtype converted, devices may differ; not into an expanded tensor
  void mark_written() const;          // a kernel has written elements: raises the version, as the above do

  // --- autograd -------------------------------------------------------------------------------------------------------------------
  bool requires_grad() const;             // a leaf that wants a gradient, or the result of an op on one
  Tensor& set_requires_grad(bool wants);  // leaves only
  const Tensor& grad() const;             // of a leaf after backward; absent before
  void set_grad(Tensor grad) const;       // backward adds into it from now on (flat parameter blocks use this); Tensor{} clears it
  bool is_leaf() const;
  Tensor detach() const;  // same elements, no tape
  std::uint32_t version() const;

  const std::shared_ptr<TensorState>& state() const { return state_; }

 private:
  std::shared_ptr<TensorState> state_;
};

// --- creation -----------------------------------------------------------------------------------------------------------------------
Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
// On the CPU, in memory that a card reads by itself (allocate_pinned).
Tensor empty_pinned(const Shape& shape, DType dtype = DType::f32);
Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = kCpu);
Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = kCpu);
Tensor arange(std::int64_t n, DType dtype = DType::i64, Device device = kCpu);
Tensor from_vector(const std::vector<float>& values, const Shape& shape);
Tensor from_vector(const std::vector<std::int64_t>& values, const Shape& shape);
Tensor scalar(float value);  // rank 0

// Row-major tensor with the same elements: the tensor itself when it is dense already. The one place that copies for layout.
Tensor dense(const Tensor& x);
// Last dimension dense and all leading dimensions collapsible to one row stride: itself, else a dense copy.
Tensor dense_rows(const Tensor& x);

// --- views for kernels ----------------------------------------------------------------------------------------------------------------
Rows rows_of(const Tensor& x);  // x from dense_rows: (product of leading sizes, last size)
ConstRows const_rows_of(const Tensor& x);
Buffer buffer_of(const Tensor& x);  // x dense
ConstBuffer const_buffer_of(const Tensor& x);
Strided strided_of(const Tensor& x);
ConstStrided const_strided_of(const Tensor& x);

std::string describe(const Tensor& x);  // "[32,50,768] bf16 cuda:0"
std::string to_string(Device device);
// "cpu", "cuda", "cuda:1". Throws ConfigError.
Device parse_device(const std::string& text);

}  // namespace twinlens
