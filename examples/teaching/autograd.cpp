// Tensors, ops and gradients. For readers of PyTorch:
//   x.requires_grad_()   x.set_requires_grad(true)
//   loss.backward()      backward(loss)
//   torch.no_grad()      NoGrad, for as long as it lives
// Ops are free functions. Elements of a tensor are shared by its copies and views; clone() copies them.

#include <cmath>
#include <cstdio>
#include <twinlens/core/autograd.h>
#include <twinlens/core/ops.h>

using namespace twinlens;

namespace {

// Four points on a plane, each of one of three classes.
const Tensor kPoints = from_vector(std::vector{1.0F, 2.0F, -1.5F, 0.5F, 0.25F, -1.0F, 2.0F, -0.5F}, {4, 2});
const Tensor kClasses = from_vector(std::vector<std::int64_t>{0, 2, 1, 1}, {4});

Tensor loss_of(const Tensor& weight, const Tensor& bias) {
  const Tensor logits = linear(kPoints, weight, bias);  // (4, 3): points weight^T + bias
  return cross_entropy(logits, kClasses);               // a scalar: the mean over the points
}

// (f(x + h) - f(x - h)) / 2h: what the gradient says, without believing it.
double central_difference(const Tensor& weight, const Tensor& bias, std::int64_t element) {
  constexpr float kStep = 1e-2F;
  const NoGrad guard;  // nothing is put on the tape
  Tensor moved = weight.clone();
  float& x = moved.data<float>()[element];
  const float kept = x;
  x = kept + kStep;
  const double above = loss_of(moved, bias).item();
  x = kept - kStep;
  const double below = loss_of(moved, bias).item();
  return (above - below) / (2.0 * kStep);
}

}  // namespace

int main() {
  Tensor weight = from_vector(std::vector{0.1F, -0.2F, 0.3F, 0.4F, -0.5F, 0.6F}, {3, 2});
  Tensor bias = zeros({3});
  weight.set_requires_grad(true);
  bias.set_requires_grad(true);

  const Tensor loss = loss_of(weight, bias);
  backward(loss);
  std::printf("loss %.4f; gradient of the weight, and by central differences:\n", loss.item());
  const std::vector<float> gradient = weight.grad().to_vector();
  double farthest = 0.0;
  for (std::int64_t i = 0; i < weight.count(); ++i) {
    const double g = gradient[static_cast<std::size_t>(i)], difference = central_difference(weight, bias, i);
    std::printf("  [%d][%d] %8.5f %8.5f\n", static_cast<int>(i / 2), static_cast<int>(i % 2), g, difference);
    farthest = std::fmax(farthest, std::fabs(g - difference));
  }

  // Gradient descent by hand. A leaf that wants a gradient may be written only under NoGrad.
  for (int step = 0; step < 100; ++step) {
    for (Tensor* leaf : {&weight, &bias}) {
      const NoGrad guard;
      leaf->copy_(sub(*leaf, affine(leaf->grad(), 0.5, 0.0)));
      leaf->set_grad({});  // else backward adds to it
    }
    backward(loss_of(weight, bias));
  }
  const NoGrad guard;
  const float fitted = loss_of(weight, bias).item();
  const Tensor guesses = argmax(linear(kPoints, weight, bias));
  std::printf("after 100 steps: loss %.4f, all classes right: %s\n", fitted, guesses.to_ints() == kClasses.to_ints() ? "yes" : "no");

  return farthest < 1e-3 && fitted < 0.1 * loss.item() && guesses.to_ints() == kClasses.to_ints() ? 0 : 1;
}
