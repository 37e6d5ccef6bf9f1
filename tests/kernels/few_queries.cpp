// The two ways in which attention makes the scores of a block's last queries, on the CPU: a register of queries, or sums along its lanes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "tests/kernels/every_set.h"

#include "twinlens/kernels/attention.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr std::int64_t kHeadDim = 24;
constexpr float kScale = 0.3F;

using Numbers = std::vector<float>;

struct Inputs {
  std::int64_t length;
  bool causal;
  Numbers q, k, v, dy;
};

Inputs random_inputs(std::int64_t length, bool causal) {
  std::mt19937 random(static_cast<unsigned>(length));
  std::normal_distribution<float> normal;
  Inputs x{length, causal, {}, {}, {}, {}};
  for (Numbers* numbers : {&x.q, &x.k, &x.v, &x.dy}) {
    for (std::int64_t i = 0; i < length * kHeadDim; ++i) numbers->push_back(normal(random));
  }
  return x;
}

struct Results {
  Numbers y, dq, dk, dv;
};

Results attend(const Inputs& x, bool along_lanes) {
  const std::int64_t offsets[] = {0, x.length};
  const auto read = [&](const Numbers& n) { return ConstRows{n.data(), DType::f32, x.length, kHeadDim, kHeadDim, nullptr}; };
  AttentionProblem p{};
  p.q = read(x.q);
  p.k = read(x.k);
  p.v = read(x.v);
  p.query_offsets = p.key_offsets = offsets;
  p.sequences = p.heads = p.slots = 1;
  p.head_dim = kHeadDim;
  p.longest_query = p.longest_key = x.length;
  p.causal = x.causal;
  p.scale = kScale;
  p.few_queries_along_lanes = along_lanes;
  Results r;
  for (Numbers* numbers : {&r.y, &r.dq, &r.dk, &r.dv}) numbers->resize(x.q.size());
  Numbers lse(static_cast<std::size_t>(x.length));
  const auto write = [&](Numbers& n) { return Rows{n.data(), DType::f32, x.length, kHeadDim, kHeadDim, nullptr}; };
  AttentionForward forward{p, write(r.y), lse.data()};
  AttentionBackward backward{p, read(r.y), read(x.dy), lse.data(), write(r.dq), write(r.dk), write(r.dv)};
  Numbers scratch(static_cast<std::size_t>(std::max(scratch_floats(forward), scratch_floats(backward))));
  forward.problem.scratch = backward.problem.scratch = scratch.data();
  run(current_stream(kCpu), forward);
  run(current_stream(kCpu), backward);
  return r;
}

struct Truth {
  std::vector<double> y, dq, dk, dv;
};

// The formulas at the head of twinlens/kernels/attention.h in double precision.
Truth in_double(const Inputs& x) {
  const auto n = static_cast<std::size_t>(x.length), d = static_cast<std::size_t>(kHeadDim);
  Truth t;
  for (auto* numbers : {&t.y, &t.dq, &t.dk, &t.dv}) numbers->resize(n * d);
  const auto dot = [&](const Numbers& a, std::size_t i, const Numbers& b, std::size_t j) {
    double sum = 0.0;
    for (std::size_t c = 0; c < d; ++c) sum += double{a[i * d + c]} * double{b[j * d + c]};
    return sum;
  };
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t keys = x.causal ? i + 1 : n;
    std::vector<double> p(keys);
    double sum = 0.0, delta = 0.0;
    for (std::size_t j = 0; j < keys; ++j) sum += p[j] = std::exp(double{kScale} * dot(x.q, i, x.k, j));
    for (std::size_t j = 0; j < keys; ++j) delta += (p[j] /= sum) * dot(x.dy, i, x.v, j);
    for (std::size_t j = 0; j < keys; ++j) {
      const double ds = double{kScale} * p[j] * (dot(x.dy, i, x.v, j) - delta);
      for (std::size_t c = 0; c < d; ++c) {
        t.y[i * d + c] += p[j] * double{x.v[j * d + c]};
        t.dq[i * d + c] += ds * double{x.k[j * d + c]};
        t.dk[j * d + c] += ds * double{x.q[i * d + c]};
        t.dv[j * d + c] += p[j] * double{x.dy[i * d + c]};
      }
    }
  }
  return t;
}

double relative_error(const Numbers& x, const std::vector<double>& truth) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    difference += (double{x[i]} - truth[i]) * (double{x[i]} - truth[i]);
    size += truth[i] * truth[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

// Lengths that leave 1, 2, 5, 9 and 13 queries behind registers of 4, 8 or 16, alone or behind blocks of 64.
TEST_CASE("attention's last queries by lanes and along them", "[attention]") {
  for (const std::int64_t length : {1, 2, 5, 50, 77, 197, 257}) {
    for (const bool causal : {false, true}) {
      const Inputs x = random_inputs(length, causal);
      const auto truth = in_double(x);
      on_every_set([&] {
        std::vector<Numbers> values;
        for (const bool along_lanes : {false, true}) {
          INFO(length << " tokens" << (causal ? ", causal" : "") << (along_lanes ? ", along the lanes" : ""));
          const Results r = attend(x, along_lanes);
          values.push_back(r.y);
          CHECK(relative_error(r.y, truth.y) < 2e-6);
          CHECK(relative_error(r.dv, truth.dv) < 2e-6);
          if (length == 1) continue;  // dS is 0
          CHECK(relative_error(r.dq, truth.dq) < 2e-6);
          CHECK(relative_error(r.dk, truth.dk) < 2e-6);
        }
        if (length == 257) CHECK(values[0] != values[1]);  // they are two ways
      });
    }
  }
}

}  // namespace twinlens
