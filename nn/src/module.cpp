#include "twinlens/nn/module.h"

#include <set>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/error.h"
#include "twinlens/nn/flat_parameters.h"

namespace twinlens {

StateDict state_dict(const Collector& model) {
  StateDict out;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    const auto [it, is_new] = out.emplace(name, tensor);
    if (!is_new && it->second.state() != tensor.state()) {
      throw ConfigError("state dict: two tensors are called '" + name + "', " + describe(it->second) + " and " + describe(tensor) +
                        "; give each a name of its own in visit()");
    }
  };
  for (const NamedParameter& p : model.parameters) add(p.name, p.parameter->value);
  for (const NamedBuffer& b : model.buffers) add(b.name, *b.tensor);
  return out;
}

void load_state_dict(const Collector& model, const StateDict& values) {
  std::vector<std::string> missing, absent, misshaped, unexpected;
  const StateDict own = state_dict(model);
  for (const auto& [name, tensor] : own) {
    const auto it = values.find(name);
    if (it == values.end()) {
      missing.push_back(name);
      continue;
    }
    if (!it->second.defined()) {
      absent.push_back(name);
    } else if (it->second.shape() != tensor.shape()) {
      misshaped.push_back(name + " (model " + to_string(tensor.shape()) + ", given " + to_string(it->second.shape()) + ")");
    }
  }
  for (const auto& [name, tensor] : values) {
    if (own.find(name) == own.end()) unexpected.push_back(name);
  }
  if (!missing.empty() || !absent.empty() || !misshaped.empty() || !unexpected.empty()) {
    throw ConfigError("weights do not fit the model;" + (missing.empty() ? "" : " missing:" + few_of(missing) + ";") +
                      (absent.empty() ? "" : " given as Tensor{}:" + few_of(absent) + ";") +
                      (misshaped.empty() ? "" : " other shapes:" + few_of(misshaped) + ";") +
                      (unexpected.empty() ? "" : " unexpected:" + few_of(unexpected) + ";") +
                      " use the model configuration that the weights were made with");
  }
  const NoGrad guard;
  for (const auto& [name, tensor] : own) Tensor(tensor).copy_(values.at(name));
  for (const NamedParameter& p : model.parameters) {
    if (p.parameter->shadow.defined()) p.parameter->shadow.copy_(p.parameter->value);
  }
}

std::int64_t count_parameters(const Collector& model) {
  std::int64_t count = 0;
  std::set<const TensorState*> counted;
  for (const NamedParameter& p : model.parameters) {
    if (counted.insert(p.parameter->value.state().get()).second) count += p.parameter->value.count();
  }
  return count;
}

void freeze(const Collector& model, const std::function<bool(const std::string&)>& is_frozen) {
  for (const NamedParameter& p : model.parameters) p.parameter->value.set_requires_grad(!is_frozen(p.name));
}

void round_weights(const Collector& model) {
  std::map<const TensorState*, Tensor> copies;  // one for a weight of two names
  for (const auto& [name, parameter] : model.parameters) {
    // Vectors are added, and rows of embeddings looked up, as they are.
    if (!has_weight_decay(name, parameter->value) || name.ends_with("token_embedding.weight")) continue;
    Tensor& copy = copies[parameter->value.state().get()];
    parameter->shadow = {};
    if (!copy.defined()) copy = parameter->rounded_operand(Compute::bf16);
    parameter->shadow = copy;
  }
}

}  // namespace twinlens
