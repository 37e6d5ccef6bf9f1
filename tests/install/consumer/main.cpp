#include <cstdio>
#include <twinlens/core/autograd.h>
#include <twinlens/core/ops.h>
#include <twinlens/core/tensor.h>
#include <twinlens/kernels/matmul.h>

int main() {
  using namespace twinlens;
  Tensor x = from_vector(std::vector<float>{1.0F, 2.0F, 3.0F, 6.0F}, {2, 2});
  x.set_requires_grad(true);
  const Tensor y = layer_norm(x, {}, {});
  backward(y, full({2, 2}, 1.0));
  std::printf("%s, first %g, gradient %s\n", describe(y).c_str(), static_cast<double>(y.to_vector()[0]), describe(x.grad()).c_str());
  return y.to_vector()[0] < -0.9F && x.grad().shape() == x.shape() ? 0 : 1;
}
