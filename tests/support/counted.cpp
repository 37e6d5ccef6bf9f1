#include "tests/support/counted.h"

#include <cmath>

#include "twinlens/core/autograd.h"

namespace twinlens::test {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

Counted::Counted(const std::string& name) {
  for (const char c : name) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
}

Tensor counted_normal(const std::string& name, const Shape& shape, double scale, double shift) {
  const double unit = 1.0 / std::sqrt(4.0 * (65536.0 * 65536.0 - 1.0) / 12.0);
  const Counted counted(name);
  Tensor x = empty(shape);
  float* p = x.data<float>();
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::uint64_t z = counted.bits(static_cast<std::uint64_t>(i));
    const auto sum = static_cast<std::int64_t>((z & 0xFFFFU) + (z >> 16U & 0xFFFFU) + (z >> 32U & 0xFFFFU) + (z >> 48U)) - 2 * 65535;
    const volatile double product = static_cast<double>(sum) * unit;  // rounded before it is added, as in NumPy
    const volatile double scaled = scale * product;
    p[i] = static_cast<float>(shift + scaled);
  }
  return x;
}

Tensor counted_weight(const std::string& name, const Shape& shape) {
  const auto dot = name.rfind('.');
  const std::string end = dot == std::string::npos ? name : name.substr(dot + 1);
  if (name == "logit_scale") return full(shape, 2.65926);
  if (name == "logit_bias") return full(shape, -10.0);
  if (end == "running_var") return counted_normal(name, shape, 0.25, 1.0);
  if (end == "running_mean") return counted_normal(name, shape, 0.1);
  if (end == "bias" || ends_with(name, "in_proj_bias")) return counted_normal(name, shape, 0.05);
  if (contains(name, "position") || contains(name, "pos_embed")) return counted_normal(name, shape, 0.05);
  if (end == "class_embedding" || end == "latent" || end == "probe") return counted_normal(name, shape, 0.5);
  if (contains(name, "token_embedding")) return counted_normal(name, shape, 0.05);
  if (shape.rank() == 1) return counted_normal(name, shape, 0.1, 1.0);
  if (name == "visual.proj" || name == "text_projection" || name == "text.text_projection") {
    return counted_normal(name, shape, std::pow(static_cast<double>(shape[0]), -0.5));
  }
  return counted_normal(name, shape, std::pow(static_cast<double>(shape.count() / shape[0]), -0.5));
}

double counted_signs_dot(const std::string& name, const Tensor& x) {
  const Counted counted(name);
  const Tensor rows = dense(x.detach());
  const float* p = rows.data<float>();
  double total = 0.0;
  for (std::int64_t i = 0; i < rows.count(); ++i) {
    total += (counted.bits(static_cast<std::uint64_t>(i)) >> 63U) != 0 ? -static_cast<double>(p[i]) : static_cast<double>(p[i]);
  }
  return total;
}

}  // namespace twinlens::test
