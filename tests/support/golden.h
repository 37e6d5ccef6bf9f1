#pragma once
// Reads tests/golden/data: truth from outside, in float64, with the distance of PyTorch's own fp32 run (tests/golden/README.md).

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "twinlens/core/safetensors.h"
#include "twinlens/core/tensor.h"

namespace twinlens::test {

class Golden {
 public:
  // `name` without extension, of a .safetensors file.
  explicit Golden(const std::string& name);

  bool has(const std::string& tensor) const;
  Tensor tensor(const std::string& name) const;              // F32, U8, I64 as stored
  std::vector<double> truth(const std::string& name) const;  // F64
  double number(const std::string& name) const;              // a 0-d F64
  // 2-norm of got - truth and its bound: 2 max(err_worst, 2^-24 |truth|), or 2 max(err, 2^-22 |truth|) where only one run was made.
  struct Distance {
    double distance = 0.0, bound = 0.0;
  };
  Distance distance(const std::vector<float>& got, const std::string& truth_name, const std::string& err_name) const;

 private:
  SafetensorsFile file_;
};

nlohmann::json golden_json(const std::string& name);

// CHECKs the distance of a tensor against its bound; a name in the message.
void check_golden(const Golden& golden, const Tensor& got, const std::string& truth_name, const std::string& err_name);

Tensor nchw_to_nhwc(const Tensor& x);
Tensor nhwc_to_nchw(const Tensor& x);

}  // namespace twinlens::test
