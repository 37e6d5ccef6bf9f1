#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/kernels/trace.h"

namespace twinlens {
namespace {

// Uneven numbers in [-1, 1].
Tensor values(const Shape& shape, double seed) {
  std::vector<float> v;
  for (std::int64_t i = 0; i < shape.count(); ++i) v.push_back(static_cast<float>(std::sin(seed + 1.7 * static_cast<double>(i * i + i))));
  return from_vector(v, shape);
}

Tensor leaf_of(const Shape& shape, double seed) {
  Tensor x = values(shape, seed);
  x.set_requires_grad(true);
  return x;
}

std::int64_t calls_of(const std::string& kernel) {
  for (const KernelTime& time : kernel_times()) {
    if (time.name == kernel) return time.calls;
  }
  return 0;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.defined() && b.defined() && a.shape() == b.shape() &&
         std::memcmp(dense(a).raw(), dense(b).raw(), static_cast<std::size_t>(a.count()) * sizeof(float)) == 0;
}

// A tower of three segments: each normalises with its own parameters and one that all share.
struct Tower {
  Tensor x = leaf_of({5, 24}, 1.0);
  Tensor gamma[3], beta[3], shared = leaf_of({24}, 2.0);
  std::vector<int> ready;  // which leaf's gradient was complete: 0 to 2 gamma, 9 shared

  Tower() {
    for (int i = 0; i < 3; ++i) {
      gamma[i] = leaf_of({24}, 3.0 + i);
      beta[i] = leaf_of({24}, 7.0 + i);
      on_grad_ready(gamma[i], [this, i](const Tensor&) { ready.push_back(i); });
    }
    on_grad_ready(shared, [this](const Tensor&) { ready.push_back(9); });
  }

  Tensor segment(int i, const Tensor& h) const { return softmax(layer_norm(layer_norm(h, gamma[i], beta[i]), shared, {})); }

  Tensor run(bool with_checkpoints) const {
    Tensor h = x;
    for (int i = 0; i < 3; ++i) {
      h = with_checkpoints ? checkpoint([this, i](const std::vector<Tensor>& in) { return segment(i, in[0]); }, {h}) : segment(i, h);
    }
    return h;
  }
};

TEST_CASE("checkpoint: values and gradients have the bits of the plain run") {
  Tower plain, saving;
  const Tensor dy = values({5, 24}, 11.0);
  const Tensor y = plain.run(false), y_again = saving.run(true);
  CHECK(same_bits(y, y_again));
  backward(y, dy);
  backward(y_again, dy);
  CHECK(same_bits(plain.x.grad(), saving.x.grad()));
  CHECK(same_bits(plain.shared.grad(), saving.shared.grad()));
  for (int i = 0; i < 3; ++i) {
    CHECK(same_bits(plain.gamma[i].grad(), saving.gamma[i].grad()));
    CHECK(same_bits(plain.beta[i].grad(), saving.beta[i].grad()));
  }
  // A leaf that several segments use is complete, and says so once, after the last of them.
  CHECK(plain.ready == std::vector<int>{2, 1, 9, 0});
  CHECK(saving.ready == std::vector<int>{2, 1, 0, 9});
}

TEST_CASE("checkpoint: one inside another") {
  Tower plain, saving;
  const Tensor dy = values({5, 24}, 11.0);
  backward(plain.run(false), dy);
  backward(checkpoint(
               [&](const std::vector<Tensor>& in) {
                 Tensor h = in[0];
                 for (int i = 0; i < 3; ++i) {
                   h = checkpoint([&saving, i](const std::vector<Tensor>& inner) { return saving.segment(i, inner[0]); }, {h});
                 }
                 return h;
               },
               {saving.x}),
           dy);
  CHECK(same_bits(plain.x.grad(), saving.x.grad()));
  CHECK(same_bits(plain.shared.grad(), saving.shared.grad()));
  CHECK(saving.ready.size() == 4);
}

TEST_CASE("checkpoint: a frozen segment is neither recorded nor run again") {
  Tower tower;
  tower.x.set_requires_grad(false);
  tower.shared.set_requires_grad(false);
  for (int i = 0; i < 2; ++i) {
    tower.gamma[i].set_requires_grad(false);
    tower.beta[i].set_requires_grad(false);
  }
  const Tensor y = tower.run(true);
  set_tracing(true);
  reset_kernel_times();
  backward(y, full({5, 24}, 1.0));
  set_tracing(false);
  CHECK(calls_of("layer_norm_forward") == 2);  // of the last segment only
  CHECK(calls_of("layer_norm_backward") == 2);
  CHECK(tower.gamma[2].grad().defined());
  CHECK_FALSE(tower.gamma[1].grad().defined());

  tower.gamma[2].set_requires_grad(false);
  tower.beta[2].set_requires_grad(false);
  CHECK_FALSE(tower.run(true).requires_grad());
}

TEST_CASE("checkpoint: absent inputs, inputs that want nothing, and fn that returns its input") {
  const Tensor x = leaf_of({2, 3}, 1.0), frozen = full({2, 3}, 2.0);
  const Tensor y = checkpoint([](const std::vector<Tensor>& in) { return concat({in[0], in[2]}, 0); }, {x, Tensor{}, frozen});
  backward(y, full({4, 3}, 1.0));
  CHECK(x.grad().to_vector() == std::vector<float>(6, 1.0F));
  CHECK_FALSE(frozen.grad().defined());
  backward(checkpoint([](const std::vector<Tensor>& in) { return in[0]; }, {x}), full({2, 3}, 1.0));
  CHECK(x.grad().to_vector() == std::vector<float>(6, 2.0F));
}

TEST_CASE("checkpoint: a tensor made outside must be an input") {
  const Tensor x = leaf_of({2, 3}, 1.0);
  const Tensor h = affine(x, 2.0, 0.0);
  CHECK_THROWS_WITH(checkpoint(
                        [&](const std::vector<Tensor>& in) {
                          return concat({in[0], h}, 0);
                        },
                        {x}),
                    Catch::Contains("checkpoint") && Catch::Contains("among the inputs"));
}

TEST_CASE("checkpoint: a parameter that fn uses must be what it was, as a saved tensor must") {
  const Tensor x = leaf_of({3}, 1.0), b = leaf_of({3}, 2.0);
  const Tensor y = checkpoint([&](const std::vector<Tensor>& in) { return mul(square(in[0]), b); }, {x});
  {
    const NoGrad guard;
    Tensor written = b;
    written.fill_(100.0);
  }
  CHECK_THROWS_WITH(backward(sum(y)),
                    Catch::StartsWith("checkpoint: a saved tensor was modified in place") && Catch::Contains("a leaf that fn uses=[3]"));
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("checkpoint: scopes of the second run are those of the first") {
  const Scope train("train");
  const Tensor x = leaf_of({3}, 1.0);
  std::vector<std::string> seen;
  const auto fn = [&](const std::vector<Tensor>& in) {
    const Scope block("block");
    seen.push_back(Scope::path());
    return square(in[0]);
  };
  backward(sum(checkpoint(fn, {x})));
  CHECK(seen == std::vector<std::string>{"train.block", "train.block"});
}

TEST_CASE("checkpoint: fn may look at tensors of outside under NoGrad") {
  const Tensor x = leaf_of({2, 3}, 1.0), w = leaf_of({3}, 2.0), only_seen = leaf_of({2, 3}, 3.0);
  const Tensor h = affine(x, 2.0, 0.0);
  std::string calls;
  on_grad_ready(w, [&](const Tensor& leaf) {
    CHECK(leaf.grad().defined());
    calls += "w";
  });
  on_grad_ready(only_seen, [&](const Tensor&) { calls += "s"; });
  const auto fn = [&](const std::vector<Tensor>& in) {
    Tensor scale;
    {
      const NoGrad guard;
      scale = add(square(h), only_seen).detach();
    }
    return mul(mul(in[0], w), scale);
  };
  const Tensor dy = values({2, 3}, 5.0);
  const Tensor plain = fn({x});
  backward(plain, dy);
  const Tensor dx = x.grad().clone(), dw = w.grad().clone();
  x.set_grad({});
  w.set_grad({});
  const Tensor y = checkpoint(fn, {x});
  CHECK(same_bits(y, plain));
  backward(y, dy);
  CHECK(same_bits(x.grad(), dx));
  CHECK(same_bits(w.grad(), dw));
  CHECK_FALSE(only_seen.grad().defined());
  CHECK(calls == "ww");  // a leaf without a gradient is not told that it is complete
  CHECK_FALSE(checkpoint(
                  [&](const std::vector<Tensor>& in) {
                    const NoGrad guard;
                    return mul(in[0], h);
                  },
                  {full({2, 3}, 1.0)})
                  .requires_grad());
}

TEST_CASE("checkpoint: a hook waits for the second run of what looks at its leaf, and gets zeros where nothing came") {
  const Tensor x = leaf_of({2}, 1.0), w = leaf_of({2}, 2.0);
  const std::vector<float> before = w.to_vector();
  const Tensor block = full({2}, 3.0);
  w.set_grad(block);
  std::vector<float> told;
  on_grad_ready(w, [&](const Tensor& leaf) {
    told = leaf.grad().to_vector();
    leaf.detach().fill_(100.0);
  });
  const Tensor y = checkpoint(
      [&](const std::vector<Tensor>& in) {
        Tensor scale;
        {
          const NoGrad guard;
          scale = affine(w, 2.0, 0.0);
        }
        return mul(in[0], scale);
      },
      {x});
  forget_grad(w);
  backward(sum(y));
  CHECK(x.grad().to_vector() == std::vector<float>{2.0F * before[0], 2.0F * before[1]});
  CHECK(told == std::vector<float>(2, 0.0F));
  CHECK(w.to_vector() == std::vector<float>(2, 100.0F));
}

TEST_CASE("checkpoint: batch norm moves its running statistics once") {
  const Tensor gamma = leaf_of({4}, 1.0), beta = leaf_of({4}, 2.0);
  const auto moved = [&](int depth) {
    Tensor mean = zeros({4}), variance = full({4}, 1.0);
    const auto norm = [&](const std::vector<Tensor>& in) {
      BatchNormOptions options;
      options.training = true;
      return batch_norm(in[0], gamma, beta, mean, variance, options);
    };
    std::function<Tensor(const std::vector<Tensor>&)> fn = norm;
    for (; depth > 0; --depth) fn = [fn](const std::vector<Tensor>& in) { return checkpoint(fn, in); };
    backward(sum(square(fn({leaf_of({6, 4}, 3.0)}))));
    std::vector<float> both = mean.to_vector();
    for (const float v : variance.to_vector()) both.push_back(v);
    return both;
  };
  const std::vector<float> plain = moved(0);
  CHECK(plain[0] != 0.0F);
  for (const int depth : {1, 2, 3}) CHECK(moved(depth) == plain);
}

TEST_CASE("a node gives an input its gradient once") {
  struct Twice final : Node {
    const char* name() const override { return "twice"; }
    void backward(const Tensor& dy, Gradients& grads) override {
      for (int i = 0; i < 2; ++i) grads.add(0, dy);
    }
    void release() override {}
  };
  const Tensor x = leaf_of({2}, 1.0);
  CHECK_THROWS_WITH(backward(sum(record(x.detach().clone(), std::make_shared<Twice>(), {&x}))),
                    Catch::StartsWith("twice: backward gave input 0 twice; add its shares up first"));
}

TEST_CASE("checkpoint: an error in the second run leaves recording as it was") {
  const Tensor x = leaf_of({2, 3}, 1.0);
  int runs = 0;
  const Tensor y = checkpoint(
      [&](const std::vector<Tensor>& in) {
        if (++runs == 2) throw Error("second run");
        return softmax(in[0]);
      },
      {x});
  CHECK_THROWS_WITH(backward(y, full({2, 3}, 1.0)), "second run");
  CHECK(grad_enabled());
  CHECK(softmax(x).requires_grad());
}

}  // namespace
}  // namespace twinlens
