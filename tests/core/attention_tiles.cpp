// bf16 attention by products of bf16 pairs (kernels/cpu/attention/tiles.h) against the form in f32, which avx512 has, and against double
// precision; with every set that multiplies such pairs.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/isa.h"

namespace twinlens {
namespace {

using Values = std::vector<double>;

struct Problem {
  std::int64_t queries, keys, heads, head_dim;
  bool causal = false;
  bool biased = false;
  double scale = 0.3;
};

struct Results {
  Values y, dq, dk, dv;
};

struct Inputs {
  Tensor q, k, v, dy, bias;
  explicit Inputs(const Problem& p) {
    const std::int64_t columns = p.heads * p.head_dim;
    const auto make = [](const Shape& shape, const char* name) { return test::tensor_of(test::random_input(shape, name)).to(DType::bf16); };
    q = make({p.queries, columns}, "q");
    k = make({p.keys, columns}, "k");
    v = make({p.keys, columns}, "v");
    dy = make({p.queries, columns}, "dy");
    if (p.biased) bias = test::tensor_of(test::random_input({p.heads, p.queries, p.keys}, "bias"));
  }
};

Values values_of(const Tensor& x) {
  const std::vector<float> v = x.to(DType::f32).to_vector();
  return {v.begin(), v.end()};
}

Results run_op(const Problem& p, const Inputs& in) {
  Tensor q = in.q.detach(), k = in.k.detach(), v = in.v.detach();
  for (Tensor* x : {&q, &k, &v}) x->set_requires_grad(true);
  AttentionOptions o;
  o.heads = static_cast<int>(p.heads);
  o.query_offsets = equal_offsets(1, p.queries);
  o.key_offsets = equal_offsets(1, p.keys);
  o.causal = p.causal;
  o.scale = p.scale;
  o.bias = in.bias;
  const Tensor y = attention(q, k, v, o);
  backward(y, in.dy);
  return {values_of(y), values_of(q.grad()), values_of(k.grad()), values_of(v.grad())};
}

// The textbook, row by row.
Results truth(const Problem& p, const Inputs& in) {
  const Values q = values_of(in.q), k = values_of(in.k), v = values_of(in.v), dy = values_of(in.dy);
  const Values bias = p.biased ? values_of(in.bias) : Values();
  const std::int64_t d = p.head_dim, columns = p.heads * d;
  Results r{Values(q.size()), Values(q.size()), Values(k.size()), Values(v.size())};
  for (std::int64_t h = 0; h < p.heads; ++h) {
    for (std::int64_t i = 0; i < p.queries; ++i) {
      const std::int64_t seen = p.causal ? std::max<std::int64_t>(0, std::min(p.keys, i + 1 + p.keys - p.queries)) : p.keys;
      const auto at = [&](std::int64_t row, std::int64_t c) { return static_cast<std::size_t>(row * columns + h * d + c); };
      const auto dot = [&](const Values& left, const Values& right, std::int64_t j) {
        double sum = 0.0;
        for (std::int64_t c = 0; c < d; ++c) sum += left[at(i, c)] * right[at(j, c)];
        return sum;
      };
      Values weights, upstream;
      double sum = 0.0, delta = 0.0;
      for (std::int64_t j = 0; j < seen; ++j) {
        const double score = p.scale * dot(q, k, j) + (p.biased ? bias[static_cast<std::size_t>((h * p.queries + i) * p.keys + j)] : 0.0);
        weights.push_back(std::exp(score));
        upstream.push_back(dot(dy, v, j));
        sum += weights.back();
      }
      for (std::size_t j = 0; j < weights.size(); ++j) delta += (weights[j] /= sum) * upstream[j];
      for (std::int64_t j = 0; j < seen; ++j) {
        const double weight = weights[static_cast<std::size_t>(j)];
        const double ds = p.scale * weight * (upstream[static_cast<std::size_t>(j)] - delta);
        for (std::int64_t c = 0; c < d; ++c) {
          r.y[at(i, c)] += weight * v[at(j, c)];
          r.dq[at(i, c)] += ds * k[at(j, c)];
          r.dk[at(j, c)] += ds * q[at(i, c)];
          r.dv[at(j, c)] += weight * dy[at(i, c)];
        }
      }
    }
  }
  return r;
}

double error_of(const Values& got, const Values& want) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(difference / size);
}

Results run_in_floats(const Problem& p, const Inputs& in) {
  const Isa isa = active_isa();
  set_active_isa(Isa::avx512);
  Results r = run_op(p, in);
  set_active_isa(isa);
  return r;
}

// Results are rounded to bf16 in both forms; what one factor that is rounded, too, may add is half a unit in its last place.
void compare(const Problem& p) {
  INFO(p.queries << " queries, " << p.keys << " keys, heads of " << p.head_dim << (p.causal ? ", causal" : "") << (p.biased ? ", bias" : "")
                 << ", scale " << p.scale);
  const Inputs in(p);
  const Results want = truth(p, in), tiles = run_op(p, in), floats = run_in_floats(p, in);
  const auto check = [](const char* name, const Values& of_tiles, const Values& of_floats, const Values& of_truth) {
    INFO(name);
    CHECK(of_tiles != of_floats);  // (so it was the other form)
    CHECK(error_of(of_tiles, of_truth) <= error_of(of_floats, of_truth) + 0x1p-9);
  };
  check("y", tiles.y, floats.y, want.y);
  check("dq", tiles.dq, floats.dq, want.dq);
  check("dk", tiles.dk, floats.dk, want.dk);
  check("dv", tiles.dv, floats.dv, want.dv);
}

// Calls f with each set that has the other form.
template <class F>
void with_pairs(F&& f) {
  const Isa before = active_isa();
  bool some = false;
  for (const Isa isa : {Isa::avx512bf16, Isa::avx512amx}) {
    if (before == Isa::neon || isa > before) continue;
    some = true;
    set_active_isa(isa);
    INFO(name_of(isa));
    f();
  }
  set_active_isa(before);
  if (!some) WARN("no products of bf16 pairs here (or capped by TWINLENS_MAX_ISA): nothing to compare");
}

void compare_problems() {
  for (const std::int64_t tokens : {16, 17, 31, 32, 33, 50, 64, 77, 128, 129, 197, 257}) {
    compare({tokens, tokens, 2, 64});
    compare({tokens, tokens, 1, 64, true});
  }
  for (const std::int64_t head_dim : {1, 8, 20, 32, 48, 80, 88, 104, 112, 128}) compare({45, 45, 2, head_dim, head_dim % 3 == 2});
  compare({16, 1024, 1, 64});
  compare({20, 200, 2, 32, true});
  compare({200, 20, 2, 32});
  compare({40, 70, 3, 24, false, true});
  compare({70, 70, 2, 24, true, true});
  compare({50, 50, 1, 64, false, false, -0.4});
  compare({50, 50, 1, 64, true, false, -0.4});
  compare({50, 50, 1, 64, true, false, 0.0});  // hidden scores stay hidden
  compare({150, 40, 1, 64, true});             // the first 110 queries see nothing
}
TEST_CASE("bf16 attention by pairs is as near to double precision as in f32") { with_pairs(compare_problems); }

// Of keys that are all equal, attention is their value, however large their scores.
void compare_large_scores() {
  const std::int64_t tokens = GENERATE(16, 40), head_dim = GENERATE(3, 64);
  for (float size = 0x1.08p+16F; size < 0x1p20F; size *= 1.03125F) {
    INFO(size);
    const auto all = [&](double value) { return full({tokens, head_dim}, value, DType::bf16).set_requires_grad(true); };
    const Tensor q = all(size), k = all(size), v = all(2.0);
    AttentionOptions o;
    o.query_offsets = equal_offsets(1, tokens);
    const Tensor y = attention(q, k, v, o);
    backward(y, full(y.shape(), 1.0, DType::bf16));
    const auto check = [](const Tensor& x, const std::function<bool(float)>& holds) {
      const std::vector<float> values = x.to(DType::f32).to_vector();
      CHECK(std::all_of(values.begin(), values.end(), holds));
    };
    check(y, [](float f) { return f == 2.0F; });
    check(v.grad(), [](float f) { return std::abs(f - 1.0F) <= 0x1p-7F; });
    for (const Tensor& x : {q.grad(), k.grad()}) check(x, [](float f) { return std::isfinite(f); });
  }
}
TEST_CASE("bf16 attention by pairs: scores of any size") { with_pairs(compare_large_scores); }

// Every head is computed in the form that suits it, whatever else there is.
void compare_unsuited() {
  for (const Problem& p :
       {Problem{1, 50, 2, 64}, Problem{15, 50, 2, 64}, Problem{50, 15, 2, 64}, Problem{17, 1025, 1, 64}, Problem{20, 20, 1, 129}}) {
    INFO(p.queries << " queries, " << p.keys << " keys, heads of " << p.head_dim);
    const Inputs in(p);
    const Results here = run_op(p, in), lower = run_in_floats(p, in);
    CHECK(here.y == lower.y);
    CHECK(here.dq == lower.dq);
    CHECK(here.dk == lower.dk);
    CHECK(here.dv == lower.dv);
  }
}
TEST_CASE("bf16 attention by pairs: only heads that suit") { with_pairs(compare_unsuited); }

}  // namespace
}  // namespace twinlens
