#pragma once
// Free functions over a model's visit(): names, state dict, counting, freezing.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "twinlens/nn/parameter.h"

namespace twinlens {

struct NamedParameter {
  std::string name;
  Parameter* parameter;
};
struct NamedBuffer {
  std::string name;
  Tensor* tensor;
};

class Collector final : public Visitor {
 public:
  std::vector<NamedParameter> parameters;
  std::vector<NamedBuffer> buffers;

 protected:
  void on_parameter(const std::string& name, Parameter& parameter) override { parameters.push_back({name, &parameter}); }
  void on_buffer(const std::string& name, Tensor& tensor) override { buffers.push_back({name, &tensor}); }
};

// Parameters and buffers of a module in visit order. The pointers are good while the module stays where it is.
template <class Module>
Collector collect(Module& module) {
  Collector collector;
  module.visit(collector);
  return collector;
}

using StateDict = std::map<std::string, Tensor>;

// Parameters, then buffers; tensors share storage with the model. Throws ConfigError when visit() gave two tensors one name.
StateDict state_dict(const Collector& model);

// Copies values in, rounded ones into the shadows too. Throws ConfigError, and changes nothing, when `values` lacks a tensor of the model,
// has it undefined (Tensor{}) or in another shape, or has one that the model lacks. The text names the first few of each.
void load_state_dict(const Collector& model, const StateDict& values);

// Elements; a tensor that stands under several names counts once.
std::int64_t count_parameters(const Collector& model);

// Parameters whose name satisfies `is_frozen` no longer want gradients; the others do.
void freeze(const Collector& model, const std::function<bool(const std::string&)>& is_frozen);

// For a model that is used and not trained, in bf16: weights get their rounded copies (Parameter::shadow) now, where products would round
// them anew each time. The same numbers, for half of the weights' memory on top. Whoever writes a weight later, other than by
// load_state_dict(), calls it again.
void round_weights(const Collector& model);

}  // namespace twinlens
