#include "tests/support/op_case.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/stream.h"

namespace twinlens::test {
namespace {

struct Result {
  Tensor y;
  std::vector<Tensor> inputs;
};

enum class Layout { dense, gapped, transposed };

// The same values in another layout: a slice of a wider tensor, or a transposed one.
Tensor in_layout(const Tensor& x, Layout layout) {
  if (layout == Layout::dense || x.rank() == 0) return x;
  const NoGrad guard;
  if (layout == Layout::transposed && x.rank() >= 2) return dense(x.transpose(-1, -2)).transpose(-1, -2);
  Shape wide = x.shape();
  wide[-1] += 5;
  Tensor base = full(wide, 77.0, x.dtype(), x.device());
  Tensor view = base.slice(-1, 3, 3 + x.size(-1));
  view.copy_(x);
  return view;
}

Result call(const OpCase& c, DType float_dtype, Layout layout, Device device = kCpu) {
  Result r;
  for (const CaseInput& input : c.inputs) {
    Tensor x = tensor_of(input, float_dtype, device);
    if (!input.parameter && input.dtype == DType::f32) x = in_layout(x, layout);
    if (input.differentiable && input.dtype == DType::f32) x.set_requires_grad(true);
    r.inputs.push_back(x);
  }
  r.y = c.call(r.inputs);
  return r;
}

// What the reference sees: inputs rounded to the dtype that the op sees.
std::vector<Array> reference_inputs(const OpCase& c, DType float_dtype) {
  std::vector<Array> out;
  for (const CaseInput& input : c.inputs) {
    Array a = input.values;
    if (input.dtype == DType::f32 && !input.parameter && float_dtype != DType::f32) {
      const std::vector<float> rounded = tensor_of(input, float_dtype).to_vector();
      for (std::size_t i = 0; i < rounded.size(); ++i) a.v[i] = static_cast<double>(rounded[i]);
    }
    out.push_back(std::move(a));
  }
  return out;
}

// (Drawing it takes longer than most ops do: it is kept while the shape is asked for again.)
const Array& upstream_gradient(const Shape& shape) {
  static Array last;
  if (last.v.empty() || !(last.shape == shape)) last = random_input(shape, "upstream").values;
  return last;
}

Tensor as_tensor(const Array& a, Device device) { return from_vector(std::vector<float>(a.v.begin(), a.v.end()), a.shape).to(device); }

// d sum(dy * reference) / d input by central differences, at up to 48 elements spread over the input (fewer where the reference is slow).
struct Difference {
  std::vector<std::int64_t> at;
  std::vector<double> value;
};
Difference difference(const OpCase& c, std::vector<Array> inputs, std::size_t which, const Array& dy) {
  Difference d;
  const auto count = static_cast<std::int64_t>(inputs[which].v.size());
  const auto work = static_cast<std::int64_t>(dy.v.size()) + count;
  const std::int64_t samples = std::max<std::int64_t>(4, std::min<std::int64_t>(48, 500'000 / std::max<std::int64_t>(1, work)));
  const std::int64_t stride = count <= samples ? 1 : count / (samples - 1);
  const auto objective = [&] {
    const Array y = c.reference(inputs);
    double total = 0.0;
    for (std::size_t i = 0; i < y.v.size(); ++i) total += y.v[i] * dy.v[i];
    return total;
  };
  for (std::int64_t i = 0; i < count; i += stride) {
    double& x = inputs[which][i];
    const double kept = x, h = 1e-5 * std::max(1.0, std::abs(kept));
    x = kept + h;
    const double up = objective();
    x = kept - h;
    const double down = objective();
    x = kept;
    d.at.push_back(i);
    d.value.push_back((up - down) / (2.0 * h));
  }
  return d;
}

// What the reference says for inputs of one dtype. Computed once: it does not depend on the instruction set, the layout or the device.
struct Expected {
  std::optional<Array> value;
  std::vector<std::optional<Difference>> gradients;
};

void check_against_reference(const OpCase& c, Expected& expected, DType float_dtype, Layout layout, Device device = kCpu) {
  const std::vector<Array> inputs = reference_inputs(c, float_dtype);
  if (!expected.value.has_value()) expected.value = c.reference(inputs);
  expected.gradients.resize(c.inputs.size());
  const Array& want = *expected.value;
  const Result r = call(c, float_dtype, layout, device);
  const bool low = float_dtype != DType::f32;
  REQUIRE(r.y.shape() == want.shape);
  CHECK(relative_error(r.y.to_vector(), want.v, c.absolute) <= (low ? c.bf16_tolerance : c.tolerance));
  if (!r.y.requires_grad() || want.v.empty()) return;
  const Array& dy = upstream_gradient(want.shape);
  backward(r.y, as_tensor(dy, device).to(r.y.dtype()));
  Array dy_seen = dy;
  if (r.y.dtype() != DType::f32) {
    const std::vector<float> rounded = as_tensor(dy, kCpu).to(r.y.dtype()).to_vector();
    dy_seen.v.assign(rounded.begin(), rounded.end());
  }
  for (std::size_t i = 0; i < r.inputs.size(); ++i) {
    if (!c.inputs[i].differentiable || c.inputs[i].dtype != DType::f32 || c.inputs[i].values.v.empty()) continue;
    INFO("gradient of input " << i);
    REQUIRE(r.inputs[i].grad().defined());
    if (r.inputs[i].dtype() == DType::f32) CHECK(r.inputs[i].grad().dtype() == DType::f32);
    const std::vector<float> all = r.inputs[i].grad().to_vector();
    if (!expected.gradients[i].has_value()) expected.gradients[i] = difference(c, inputs, i, dy_seen);
    const Difference& d = *expected.gradients[i];
    std::vector<float> got;
    for (const std::int64_t at : d.at) got.push_back(all[static_cast<std::size_t>(at)]);
    CHECK(relative_error(got, d.value, std::max(c.absolute, 1e-8)) <= (low ? c.bf16_tolerance : c.gradient_tolerance));
  }
}

// Every bit of the result and of all gradients.
std::vector<std::uint8_t> bits(const OpCase& c, DType float_dtype, Device device = kCpu) {
  const Result r = call(c, float_dtype, Layout::dense, device);
  std::vector<Tensor> all{r.y.detach()};
  if (r.y.requires_grad()) {
    backward(r.y, as_tensor(upstream_gradient(r.y.shape()), device).to(r.y.dtype()));
    for (const Tensor& x : r.inputs) {
      if (x.grad().defined()) all.push_back(x.grad());
    }
  }
  std::vector<std::uint8_t> out;
  for (const Tensor& t : all) {
    const Tensor host = dense(t.to(kCpu));
    const auto* p = static_cast<const std::uint8_t*>(host.raw());
    out.insert(out.end(), p, p + host.count() * size_of(host.dtype()));
  }
  return out;
}

// From run to run, and for 1 and 2 threads.
void check_equal_bits(const OpCase& c, DType float_dtype) {
  INFO(name_of(float_dtype));
  const int threads = thread_count();
  const std::vector<std::uint8_t> first = bits(c, float_dtype);
  CHECK(bits(c, float_dtype) == first);
  set_thread_count(threads == 1 ? 2 : 1);
  CHECK(bits(c, float_dtype) == first);
  set_thread_count(threads);
}

// Whether f16, of 5 bits of exponent, holds numbers of this size with its 11 bits of significand.
bool suits_f16(const std::vector<double>& v) {
  double largest = 0.0;
  for (const double x : v) largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
  return largest == 0.0 || (largest > 1e-3 && largest < 3e4);
}

// Inputs, result and gradients, as the reference says for bf16.
bool suits_f16(const OpCase& c, const Expected& expected) {
  bool suits = suits_f16(expected.value->v);
  for (const CaseInput& input : c.inputs) suits = suits && (input.dtype != DType::f32 || suits_f16(input.values.v));
  for (const std::optional<Difference>& d : expected.gradients) suits = suits && (!d.has_value() || suits_f16(d->value));
  return suits;
}

// tests/kernels/device.cpp says why, where there is no card.
void check_on_cuda(const OpCase& c, Expected& f32, Expected& bf16) {
  const Device cuda{DeviceType::cuda, 0};
  INFO("cuda");
  Expected f16;
  const std::int64_t violations = memory_guard_violations();
  set_memory_guards(true);
  check_against_reference(c, f32, DType::f32, Layout::dense, cuda);
  if (c.bf16_tolerance > 0.0) {
    check_against_reference(c, bf16, DType::bf16, Layout::dense, cuda);
    if (c.f16 && suits_f16(c, bf16)) check_against_reference(c, f16, DType::f16, Layout::dense, cuda);  // three bits finer than bf16
  }
  set_memory_guards(false);
  CHECK(memory_guard_violations() == violations);

  for (const Layout layout : {Layout::gapped, Layout::transposed}) {
    INFO("non-contiguous inputs");
    check_against_reference(c, f32, DType::f32, layout, cuda);
    if (c.bf16_tolerance > 0.0) check_against_reference(c, bf16, DType::bf16, layout, cuda);
  }
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (dtype != DType::f32 && c.bf16_tolerance <= 0.0) continue;
    INFO(name_of(dtype) << " from run to run");
    CHECK(bits(c, dtype, cuda) == bits(c, dtype, cuda));
  }
}

// TWINLENS_OP_CASES=cuda leaves the CPU out: tests/gpu.sh has compute-sanitizer look at the card alone.
bool only_on_cuda() {
  const char* which = std::getenv("TWINLENS_OP_CASES");
  return which != nullptr && std::string(which) == "cuda";
}

void check_case(const OpCase& c) {
  INFO("case " << c.name);
  if (only_on_cuda()) {
    Expected on_f32, on_bf16;
    REQUIRE(cuda_device_count() > 0);
    if (c.cuda) check_on_cuda(c, on_f32, on_bf16);
    return;
  }
  Isa sets[5];
  const int set_count = available_isas(sets);
  const Isa best = active_isa();
  Expected f32, bf16;
  const std::int64_t violations = memory_guard_violations();
  set_memory_guards(true);
  for (int s = 0; s < set_count; ++s) {
    if (sets[s] > best) continue;
    set_active_isa(sets[s]);
    INFO("instruction set " << name_of(sets[s]));
    check_against_reference(c, f32, DType::f32, Layout::dense);
    if (c.bf16_tolerance > 0.0) {
      INFO("bf16");
      check_against_reference(c, bf16, DType::bf16, Layout::dense);
    }
  }
  set_active_isa(best);
  set_memory_guards(false);
  CHECK(memory_guard_violations() == violations);

  for (const Layout layout : {Layout::gapped, Layout::transposed}) {
    INFO("non-contiguous inputs");
    check_against_reference(c, f32, DType::f32, layout);
    if (c.bf16_tolerance > 0.0) check_against_reference(c, bf16, DType::bf16, layout);
  }

  check_equal_bits(c, DType::f32);
  if (c.bf16_tolerance > 0.0) check_equal_bits(c, DType::bf16);

  if (c.cuda && cuda_device_count() > 0) check_on_cuda(c, f32, bf16);
}

}  // namespace

double relative_error(const std::vector<float>& got, const std::vector<double>& want, double absolute) {
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  double difference2 = 0.0, want2 = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]);
    if (!std::isfinite(g) || !std::isfinite(want[i])) {
      const bool same = (std::isnan(g) && std::isnan(want[i])) || g == want[i];
      if (!same) return std::numeric_limits<double>::infinity();
      continue;
    }
    difference2 += (g - want[i]) * (g - want[i]);
    want2 += want[i] * want[i];
  }
  if (std::sqrt(difference2) <= absolute * std::sqrt(static_cast<double>(got.size()))) return 0.0;
  return std::sqrt(difference2 / want2);
}

void run_op_cases(const OpCases& op) {
  REQUIRE(!op.cases.empty());
  REQUIRE(!op.errors.empty());
  for (const OpCase& c : op.cases) check_case(c);
  for (const ErrorCase& e : op.errors) {
    INFO("error case " << e.name);
    std::string message;
    try {
      e.call();
    } catch (const Error& error) {
      message = error.what();
    }
    REQUIRE(!message.empty());
    for (const std::string& part : e.message_has) CHECK_THAT(message, Catch::Contains(part));
  }
}

}  // namespace twinlens::test
