#include "twinlens/core/tensor.h"

#include "core/src/tensor_state.h"

#include "twinlens/core/check.h"
#include "twinlens/kernels/copy.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/kernels/stream.h"

namespace twinlens {
namespace {

const TensorState& state_of(const Tensor& x) {
  if (!x.defined()) {
    throw Error("tensor: an absent tensor was used; Tensor{} has no shape or elements; pass a tensor or test defined()" +
                (Scope::path().empty() ? "" : "; in " + Scope::path()));
  }
  return *x.state();
}

bool strides_are_dense(const Shape& shape, const Shape& strides) {
  const Shape dense = dense_strides(shape);
  for (int d = 0; d < shape.rank(); ++d) {
    if (shape[d] != 1 && strides[d] != dense[d]) return false;
  }
  return true;
}

template <class View, class Data>
View strided_view(const Tensor& x, Data* data) {
  View v;
  v.data = data;
  v.dtype = x.dtype();
  v.rank = x.rank();
  for (int d = 0; d < v.rank; ++d) {
    v.shape[d] = x.shape()[d];
    v.strides[d] = x.strides()[d];
  }
  return v;
}

template <class View, class Data>
View rows_view(const Tensor& x, Data* data) {
  View v;
  v.data = data;
  v.dtype = x.dtype();
  v.cols = x.rank() == 0 ? 1 : x.size(-1);
  v.rows = x.rank() == 0 ? 1 : x.shape().without(-1).count();
  v.stride = v.cols;
  for (int d = x.rank() - 2; d >= 0; --d) {
    if (x.size(d) != 1) {
      v.stride = x.strides()[d];
      break;
    }
  }
  return v;
}

void run_copy(const Tensor& from, const Tensor& to) { run(current_stream(to.device()), Copy{const_strided_of(from), strided_of(to)}); }

// Whether the stretches of memory from the first to the last element of two tensors meet.
bool meet(const Tensor& a, const Tensor& b) {
  if (a.count() == 0 || b.count() == 0) return false;
  const auto end = [](const Tensor& x) {
    std::int64_t last = 0;
    for (int d = 0; d < x.rank(); ++d) last += (x.size(d) - 1) * x.strides()[d];
    return static_cast<const char*>(x.raw()) + (last + 1) * size_of(x.dtype());
  };
  return static_cast<const char*>(a.raw()) < end(b) && static_cast<const char*>(b.raw()) < end(a);
}

template <class T>
Tensor from_host(const std::vector<T>& values, const Shape& shape, DType dtype) {
  if (static_cast<std::int64_t>(values.size()) != shape.count()) {
    throw ShapeError("from_vector: " + std::to_string(values.size()) + " values for shape " + to_string(shape) + "; give one per element");
  }
  Tensor x = empty(shape, dtype);
  copy_bytes(current_stream(kCpu), x.raw(), kCpu, values.data(), kCpu, values.size() * sizeof(T));
  return x;
}

}  // namespace

std::shared_ptr<TensorState> make_view(const Tensor& base, const Shape& shape, const Shape& strides, std::int64_t offset) {
  const TensorState& from = *base.state();
  auto view = std::make_shared<TensorState>();
  view->storage = from.storage;
  view->data = static_cast<char*>(from.data) + offset * size_of(from.dtype);
  view->shape = shape;
  view->strides = strides;
  view->dtype = from.dtype;
  view->device = from.device;
  return view;
}

const Shape& Tensor::shape() const { return state_of(*this).shape; }
const Shape& Tensor::strides() const { return state_of(*this).strides; }
DType Tensor::dtype() const { return state_of(*this).dtype; }
Device Tensor::device() const { return state_of(*this).device; }
bool Tensor::is_dense() const { return strides_are_dense(shape(), strides()); }
void* Tensor::raw() const { return state_of(*this).data; }
std::uint32_t Tensor::version() const { return state_of(*this).storage->version; }

template <class T>
T* Tensor::data() const {
  constexpr bool is_signed_integer = static_cast<T>(-1) < static_cast<T>(1);
  bool fits = size_of(dtype()) == static_cast<std::int64_t>(sizeof(T));
  if constexpr (std::is_same_v<T, float>) {
    fits = dtype() == DType::f32;
  } else if constexpr (is_signed_integer) {
    fits = fits && (dtype() == DType::i32 || dtype() == DType::i64);
  } else {
    fits = dtype() == DType::u8 || dtype() == DType::boolean;
  }
  check_dtype(fits, "data", "the element type asked for is not that of the tensor", {{"x", *this}});
  if (device().is_cuda())
    fail(ErrorKind::device, "data", "elements of a CUDA tensor cannot be touched by the host; copy it with .to(kCpu)", {{"x", *this}});
  return static_cast<T*>(raw());
}
template float* Tensor::data<float>() const;
template std::int64_t* Tensor::data<std::int64_t>() const;
template std::int32_t* Tensor::data<std::int32_t>() const;
template std::uint8_t* Tensor::data<std::uint8_t>() const;

float Tensor::item() const {
  check(count() == 1, "item", "needs a tensor of one element", {{"x", *this}});
  return to_vector()[0];
}

std::vector<float> Tensor::to_vector() const {
  const NoGrad guard;
  const Tensor host = dense(to(kCpu).to(DType::f32));
  const float* p = host.data<float>();
  return {p, p + host.count()};
}

std::vector<std::int64_t> Tensor::to_ints() const {
  const NoGrad guard;
  const Tensor host = dense(to(kCpu).to(DType::i64));
  const std::int64_t* p = host.data<std::int64_t>();
  return {p, p + host.count()};
}

Tensor& Tensor::fill_(double value) {
  if (requires_grad() && grad_enabled()) {
    fail(ErrorKind::autograd, "fill_", "in-place writes are not recorded, and this tensor wants a gradient; do it under NoGrad",
         {{"x", *this}});
  }
  if (is_dense()) {
    run(current_stream(device()), Fill{buffer_of(*this), value});
    ++state_->storage->version;
    return *this;
  }
  // Where an expanded tensor has one element several times, it is written once.
  Shape sizes = shape();
  for (int d = 0; d < rank(); ++d) {
    if (strides()[d] == 0 && sizes[d] > 0) sizes[d] = 1;
  }
  Tensor once(make_view(*this, sizes, strides(), 0));
  const NoGrad guard;
  once.copy_(full({}, value, dtype(), device()).expand(sizes));
  return *this;
}

Tensor& Tensor::copy_(const Tensor& from) {
  check(from.shape() == shape(), "copy_", "shapes must be equal", {{"to", *this}, {"from", from}});
  for (int d = 0; d < rank(); ++d) {
    check(strides()[d] != 0 || size(d) <= 1 || count() == 0, "copy_", "several elements of an expanded tensor are one in memory",
          {{"to", *this}});
  }
  if (requires_grad() && grad_enabled()) {
    fail(ErrorKind::autograd, "copy_", "in-place writes are not recorded, and this tensor wants a gradient; do it under NoGrad",
         {{"to", *this}, {"from", from}});
  }
  if (needs_grad({&from})) {
    fail(ErrorKind::autograd, "copy_", "in-place writes are not recorded, and no gradient would come back to what is copied; detach() it",
         {{"to", *this}, {"from", from}});
  }
  if (from.device() == device()) {
    // Elements are moved in no particular order: between views of the same memory they are taken aside first.
    run_copy(meet(from, *this) ? from.detach().clone() : from, *this);
  } else {
    // Across devices only dense memory of one type moves; layout and type are changed on the side that has the kernel.
    const NoGrad guard;
    const Tensor source = dense(from.to(dtype()));
    check(is_dense(), "copy_", "a copy between devices needs a dense target", {{"to", *this}});
    Stream& stream = current_stream(device().is_cuda() ? device() : from.device());
    copy_bytes(stream, raw(), device(), source.raw(), source.device(), static_cast<std::size_t>(count() * size_of(dtype())));
  }
  ++state_->storage->version;
  return *this;
}

void Tensor::mark_written() const { ++state_of(*this).storage->version; }

bool Tensor::requires_grad() const { return state_of(*this).requires_grad; }

Tensor& Tensor::set_requires_grad(bool wants) {
  if (!is_leaf()) fail(ErrorKind::autograd, "set_requires_grad", "only a leaf can be told; this tensor was made by an op", {{"x", *this}});
  check_dtype(!wants || is_float(dtype()), "set_requires_grad", "only floating tensors have gradients", {{"x", *this}});
  state_->requires_grad = wants;
  return *this;
}

const Tensor& Tensor::grad() const { return state_of(*this).grad; }

void Tensor::set_grad(Tensor grad) const {
  state_of(*this);
  if (grad.defined()) {
    if (!is_leaf()) fail(ErrorKind::autograd, "set_grad", "only leaves keep gradients; this tensor was made by an op", {{"x", *this}});
    check(grad.shape() == shape(), "set_grad", "the gradient must have the shape of the leaf", {{"x", *this}, {"grad", grad}});
    check_compute_dtype("set_grad", {{"grad", grad}});  // backward adds to it
    check_dtype(dtype() != DType::f32 || grad.dtype() == DType::f32, "set_grad", "the gradient of an f32 leaf is f32",
                {{"x", *this}, {"grad", grad}});
    check_same_device("set_grad", {{"x", *this}, {"grad", grad}});
    check(grad.is_dense(), "set_grad", "backward adds to the gradient's elements, which must lie one behind the other", {{"grad", grad}});
  }
  state_->grad_is_bound = grad.defined();
  state_->grad_is_forgotten = false;
  state_->grad = std::move(grad);
}

bool Tensor::is_leaf() const { return state_of(*this).node == nullptr; }

Tensor Tensor::detach() const { return Tensor(make_view(*this, shape(), strides(), 0)); }

Tensor apart(const Tensor& x) {
  std::shared_ptr<TensorState> part = make_view(x, x.shape(), x.strides(), 0);
  // Holds no memory itself, but what does.
  part->storage = std::shared_ptr<Storage>(new Storage, [whole = part->storage](Storage* own) { delete own; });
  return Tensor(std::move(part));
}

namespace {

Tensor tensor_in(Memory memory, const Shape& shape, DType dtype, Device device) {
  auto state = std::make_shared<TensorState>();
  state->storage = std::make_shared<Storage>();
  state->storage->memory = std::move(memory);
  state->data = state->storage->memory.data();
  state->shape = shape;
  state->strides = dense_strides(shape);
  state->dtype = dtype;
  state->device = device;
  return Tensor(std::move(state));
}

std::size_t bytes_of(const Shape& shape, DType dtype) {
  for (const std::int64_t size : shape) {
    if (size < 0) throw ShapeError("empty: negative size; shape " + to_string(shape) + "; sizes are 0 or more");
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(shape.count(), size_of(dtype), &bytes))
    throw ShapeError("empty: more bytes than 64 bits can count; shape " + to_string(shape) + "; check the sizes");
  return static_cast<std::size_t>(bytes);
}

}  // namespace

Tensor empty(const Shape& shape, DType dtype, Device device) {
  if (device.is_cpu() && device.index != 0)
    throw DeviceError("empty: there is one CPU, and its index is " + std::to_string(device.index) + "; its argument; give kCpu");
  return tensor_in(allocate(current_stream(device), bytes_of(shape, dtype)), shape, dtype, device);
}

Tensor empty_pinned(const Shape& shape, DType dtype) { return tensor_in(allocate_pinned(bytes_of(shape, dtype)), shape, dtype, kCpu); }

Tensor zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0.0, dtype, device); }

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor x = empty(shape, dtype, device);
  x.fill_(value);
  return x;
}

Tensor arange(std::int64_t n, DType dtype, Device device) {
  check(n >= 0, "arange", "n must be 0 or more; n=" + std::to_string(n));
  static_cast<void>(bytes_of({n}, DType::i64));  // (refuses what no memory holds)
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = i;
  return from_vector(values, {n}).to(dtype).to(device);
}

Tensor from_vector(const std::vector<float>& values, const Shape& shape) { return from_host(values, shape, DType::f32); }
Tensor from_vector(const std::vector<std::int64_t>& values, const Shape& shape) { return from_host(values, shape, DType::i64); }
Tensor scalar(float value) { return full({}, value); }

Rows rows_of(const Tensor& x) { return rows_view<Rows>(x, x.raw()); }
ConstRows const_rows_of(const Tensor& x) { return rows_view<ConstRows>(x, static_cast<const void*>(x.raw())); }
Buffer buffer_of(const Tensor& x) { return {x.raw(), x.dtype(), x.count()}; }
ConstBuffer const_buffer_of(const Tensor& x) { return {x.raw(), x.dtype(), x.count()}; }
Strided strided_of(const Tensor& x) { return strided_view<Strided>(x, x.raw()); }
ConstStrided const_strided_of(const Tensor& x) { return strided_view<ConstStrided>(x, static_cast<const void*>(x.raw())); }

std::string to_string(Device device) { return device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.index); }

std::string describe(const Tensor& x) {
  if (!x.defined()) return "(absent)";
  return to_string(x.shape()) + " " + name_of(x.dtype()) + " " + to_string(x.device());
}

Device parse_device(const std::string& text) {
  if (text == "cpu") return kCpu;
  if (text == "cuda") return {DeviceType::cuda, 0};
  if (text.rfind("cuda:", 0) == 0 && text.size() > 5 && text.find_first_not_of("0123456789", 5) == std::string::npos) {
    if (text.size() <= 8) return {DeviceType::cuda, std::stoi(text.substr(5))};
  }
  throw ConfigError("unknown device '" + text + "'; --device; use cpu, cuda or cuda:INDEX");
}

}  // namespace twinlens
