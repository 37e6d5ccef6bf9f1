#pragma once
// Parameter and Visitor. A module is a plain struct whose one duty is `void visit(Visitor& v)`: name each child, parameter or buffer.
// State dict, counting, freezing, weight-decay groups, EMA are free functions over it (module.h).

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "twinlens/core/ops.h"
#include "twinlens/core/tensor.h"

namespace twinlens {

// An f32 master value that wants a gradient, and optionally its bf16 copy for products (refreshed by the optimizer once per step).
struct Parameter {
  Tensor value;
  Tensor shadow;

  Parameter() = default;
  explicit Parameter(const Shape& shape);
  bool defined() const { return value.defined(); }
  // The copy to multiply with: the shadow when computing in bf16 and there is one, else the master (which f16 products round themselves).
  const Tensor& operand(Compute compute) const { return compute == Compute::bf16 && shadow.defined() ? shadow : value; }
  // The same for ops that take one dtype only: a rounded copy where there is no shadow (in f16, or of a model without copies). The
  // gradient of one in bf16 goes to the master in f32, as a shadow's does.
  Tensor rounded_operand(Compute compute) const;
};

class Visitor {
 public:
  virtual ~Visitor() = default;

  void operator()(std::string_view name, Parameter& parameter) {
    if (parameter.defined()) on_parameter(path(name), parameter);
  }
  // State that is saved but not trained (running statistics).
  void buffer(std::string_view name, Tensor& tensor) {
    if (tensor.defined()) on_buffer(path(name), tensor);
  }
  template <class Module>
  void operator()(std::string_view name, std::vector<Module>& modules) {
    inside(name, [&] {
      for (std::size_t i = 0; i < modules.size(); ++i) (*this)(std::to_string(i), modules[i]);
    });
  }
  template <class Module>
  void operator()(std::string_view name, std::optional<Module>& module) {
    if (module.has_value()) (*this)(name, *module);
  }
  template <class Module>
  void operator()(std::string_view name, Module& module) {
    inside(name, [&] { module.visit(*this); });
  }

 protected:
  virtual void on_parameter(const std::string& name, Parameter& parameter) = 0;
  virtual void on_buffer(const std::string&, Tensor&) {}

 private:
  std::string path(std::string_view name) const { return prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name); }
  template <class F>
  void inside(std::string_view name, F f) {
    const std::size_t length = prefix_.size();
    prefix_ = path(name);
    f();
    prefix_.resize(length);
  }
  std::string prefix_;
};

// How one forward pass runs. Passed down explicitly; modules keep no mode of their own.
struct Context {
  bool training = false;
  Compute compute = Compute::fp32;  // of matrix products; the residual stream and all statistics stay f32
  const StepBlock* step = nullptr;  // random numbers; may be null when nothing is random
  bool update_statistics = true;    // batch norm: off in the second pass of cached-feature accumulation
  bool checkpoint_blocks = false;   // recompute Transformer blocks in backward
  bool recompute_cheap = false;     // recompute what costs little, normalised rows and activations, in backward

  // dtype of activations between products
  DType activation_dtype() const { return compute == Compute::bf16 ? DType::bf16 : compute == Compute::f16 ? DType::f16 : DType::f32; }
};

}  // namespace twinlens
