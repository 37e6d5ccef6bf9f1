#pragma once
// What a Tensor handle points to. Private to core.

#include <functional>
#include <memory>

#include "twinlens/core/autograd.h"
#include "twinlens/core/tensor.h"

namespace twinlens {

struct TensorState {
  std::shared_ptr<Storage> storage;
  void* data = nullptr;  // first element of this view
  Shape shape, strides;
  DType dtype = DType::f32;
  Device device;

  bool requires_grad = false;
  std::shared_ptr<Node> node;                  // the op that made it; null for a leaf
  std::shared_ptr<TensorState> gradient_leaf;  // a shadow copy (bf16) sends its gradient to the master
  Tensor grad;                                 // leaves only
  bool grad_is_bound = false;                  // set_grad was called: add into grad, never replace it
  bool grad_is_forgotten = false;              // it counts as zero, whatever stands in its memory (forget_grad)
  std::function<void(const Tensor&)> hook;
  std::function<Tensor()> recipe;  // set_recipe, and the storage's version then
  std::uint32_t recipe_version = 0;
};

// A view of the same storage.
std::shared_ptr<TensorState> make_view(const Tensor& base, const Shape& shape, const Shape& strides, std::int64_t offset);

}  // namespace twinlens
