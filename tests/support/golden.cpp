#include "tests/support/golden.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/isa.h"

namespace twinlens::test {
namespace {

std::string path_of(const std::string& file) { return std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/" + file; }

// "err_grad0.x" -> "err_grad0_worst.x", "err.x" -> "err_worst.x", "case.err.out.x" -> "case.err.out_worst.x"
std::string worst_name(const std::string& err) {
  const auto of_case = err.find(".err.");
  const auto dot = err.find('.', of_case == std::string::npos ? 0 : of_case + 5);
  return err.substr(0, dot) + "_worst" + err.substr(dot);
}

}  // namespace

Golden::Golden(const std::string& name) : file_(path_of(name + ".safetensors")) {}

bool Golden::has(const std::string& name) const { return file_.contains(name); }
Tensor Golden::tensor(const std::string& name) const { return file_.tensor(name); }
std::vector<double> Golden::truth(const std::string& name) const { return file_.doubles(name); }
double Golden::number(const std::string& name) const { return truth(name).at(0); }

Golden::Distance Golden::distance(const std::vector<float>& got, const std::string& truth_name, const std::string& err_name) const {
  const std::vector<double> want = truth(truth_name);
  INFO("tensor " << truth_name);
  REQUIRE(got.size() == want.size());
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]);
    if (std::isinf(want[i]) && g == want[i]) continue;
    difference += (g - want[i]) * (g - want[i]);
    norm += want[i] * want[i];
  }
  // err_worst is the largest of nine fp32 runs (of a single number, of hundreds: make_train20.py); a single run's err is one draw of
  // rounding luck, so it stands beside two bits more.
  const bool many = has(worst_name(err_name));
  const double err = number(many ? worst_name(err_name) : err_name);
  // PyTorch's runs had a fused multiply-add. Without one every product is rounded before it is added: two roundings for one.
  const double roundings = active_isa() == Isa::scalar ? 2.0 : 1.0;
  return {std::sqrt(difference), 2.0 * roundings * std::max(err, (many ? 0x1p-24 : 0x1p-22) * std::sqrt(norm))};
}

nlohmann::json golden_json(const std::string& name) {
  std::ifstream file(path_of(name + ".json"));
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

void check_golden(const Golden& golden, const Tensor& got, const std::string& truth_name, const std::string& err_name) {
  const Golden::Distance d = golden.distance(got.to_vector(), truth_name, err_name);
  INFO(truth_name);
  CHECK(d.distance <= d.bound);
}

Tensor nchw_to_nhwc(const Tensor& x) { return dense(x.permute({0, 2, 3, 1})); }
Tensor nhwc_to_nchw(const Tensor& x) { return dense(x.permute({0, 3, 1, 2})); }

}  // namespace twinlens::test
