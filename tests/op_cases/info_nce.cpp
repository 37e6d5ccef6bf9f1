#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Pairs {
  std::int64_t n = 0, columns = 0, d = 0;
  std::int64_t offset = 0;
  double scale = 1.0;
  double matched = 0.0;             // share of its own column in a row
  std::vector<std::int64_t> ids{};  // of the columns
};

double logit(const Array& u, const Array& v, std::int64_t i, std::int64_t j, double scale) {
  double sum = 0.0;
  for (std::int64_t k = 0; k < u.cols(); ++k) sum += u[i * u.cols() + k] * v[j * u.cols() + k];
  return std::exp(scale) * sum;
}

Array logits_of(const Pairs& p, const std::vector<Array>& in) {
  Array all({p.n, p.columns});
  for (std::int64_t i = 0; i < p.n; ++i) {
    for (std::int64_t j = 0; j < p.columns; ++j) all[i * p.columns + j] = logit(in[0], in[1], i, j, in[2][0]);
  }
  return all;
}

// The loss of one row or column against the targets: log-sum-exp relative to the own pair, so that a tiny one keeps its digits.
// others(k): logit minus own logit, or -inf where it does not count.
template <class F>
double against_own(std::int64_t count, std::int64_t own, F&& others) {
  double largest = 0.0, sum = 0.0;
  for (std::int64_t k = 0; k < count; ++k) largest = std::max(largest, others(k));
  for (std::int64_t k = 0; k < count; ++k) sum += k == own ? 0.0 : std::exp(others(k) - largest);
  return largest == 0.0 ? std::log1p(sum) : largest + std::log(sum + std::exp(-largest));
}

Array info_nce_reference(const Pairs& p, const std::vector<Array>& in) {
  const double out = -std::numeric_limits<double>::infinity();
  const Array logits = logits_of(p, in);
  const auto counts = [&](std::int64_t i, std::int64_t j) {
    return p.ids.empty() || i + p.offset == j || p.ids[static_cast<std::size_t>(i + p.offset)] != p.ids[static_cast<std::size_t>(j)];
  };
  double total = 0.0;
  const auto at = [&](std::int64_t i, std::int64_t j) { return logits[i * p.columns + j]; };
  for (std::int64_t i = 0; i < p.n; ++i) {
    const std::int64_t mate = i + p.offset;
    const double own = at(i, mate);
    total += against_own(p.columns, mate, [&](std::int64_t j) { return counts(i, j) ? at(i, j) - own : out; });
    total += against_own(p.n, i, [&](std::int64_t k) { return counts(k, mate) ? at(k, mate) - own : out; });
  }
  return Array({}, p.n > 0 ? total / (2.0 * static_cast<double>(p.n)) : 0.0);
}

Array sigmoid_reference(const Pairs& p, const std::vector<Array>& in) {
  double total = 0.0;
  for (std::int64_t i = 0; i < p.n; ++i) {
    for (std::int64_t j = 0; j < p.columns; ++j) {
      const bool own = i + p.offset == j;
      if (!own && !p.ids.empty() && p.ids[static_cast<std::size_t>(i + p.offset)] == p.ids[static_cast<std::size_t>(j)]) continue;
      const double x = (logit(in[0], in[1], i, j, in[2][0]) + in[3][0]) * (own ? -1.0 : 1.0);
      total += std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    }
  }
  return Array({}, p.n > 0 ? total / static_cast<double>(p.n) : 0.0);
}

std::vector<CaseInput> features(const Pairs& p, const std::string& name) {
  const double length = 1.0 / std::sqrt(static_cast<double>(p.d));
  CaseInput u = parameter_input({p.n, p.d}, name + " rows", length), v = parameter_input({p.columns, p.d}, name + " columns", length);
  for (std::int64_t i = 0; i < p.n * p.d; ++i) {
    u.values[i] = p.matched * v.values[i + p.offset * p.d] + (1.0 - p.matched) * u.values[i];
    u.values[i] = static_cast<double>(static_cast<float>(u.values[i]));
  }
  CaseInput scale = parameter_input({}, name + " scale");
  scale.values[0] = static_cast<double>(std::log(static_cast<float>(p.scale)));
  return {u, v, scale};
}

InfoNceOptions options_of(const Pairs& p, std::int64_t tile_rows, std::int64_t tile_columns, Device device) {
  InfoNceOptions o;
  o.offset = p.offset;
  if (!p.ids.empty()) {
    o.column_ids = from_vector(p.ids, {p.columns}).to(device);
    o.row_ids = o.column_ids.slice(0, p.offset, p.offset + p.n);
  }
  o.tile_rows = tile_rows;
  o.tile_columns = tile_columns;
  return o;
}

// Columns that no row owns have no own logit: they are the other ranks'.
OpCase info_nce_case(const std::string& name, const Pairs& p, double factor = 1.0, std::int64_t tile_rows = 0,
                     std::int64_t tile_columns = 0) {
  OpCase c;
  c.name = name;
  c.inputs = features(p, name);
  c.call = [=](const std::vector<Tensor>& in) {
    return affine(info_nce(in[0], in[1], in[2], options_of(p, tile_rows, tile_columns, in[0].device())), factor, 0.0);
  };
  c.reference = [=](const std::vector<Array>& in) { return Array({}, factor * info_nce_reference(p, in)[0]); };
  c.bf16_tolerance = 0.0;
  c.cuda = true;
  return c;
}

OpCase sigmoid_case(const std::string& name, const Pairs& p, double bias, std::int64_t tile_rows = 0, std::int64_t tile_columns = 0) {
  OpCase c;
  c.name = "sigmoid " + name;
  c.inputs = features(p, name);
  c.inputs.push_back(parameter_input({1}, name + " bias"));
  c.inputs.back().values[0] = bias;
  c.call = [=](const std::vector<Tensor>& in) {
    return sigmoid_loss(in[0], in[1], in[2], in[3], options_of(p, tile_rows, tile_columns, in[0].device()));
  };
  c.reference = [=](const std::vector<Array>& in) { return sigmoid_reference(p, in); };
  c.bf16_tolerance = 0.0;
  c.cuda = true;
  return c;
}

// The teacher's features stand after the student's; the reference is the soft cross-entropy of both directions.
OpCase distilled(const std::string& name, const Pairs& p, double teacher_scale, std::int64_t tile_rows, std::int64_t tile_columns) {
  OpCase c;
  c.name = "distilled " + name;
  c.inputs = features(p, name);
  Pairs other = p;
  other.scale = teacher_scale;
  for (CaseInput& input : features(other, name + " teacher")) {
    input.differentiable = false;
    c.inputs.push_back(input);
  }
  c.call = [=](const std::vector<Tensor>& in) {
    InfoNceOptions o = options_of(p, tile_rows, tile_columns, in[0].device());
    o.teacher_rows = in[3];
    o.teacher_columns = in[4];
    o.teacher_logit_scale = in[5];
    return info_nce(in[0], in[1], in[2], o);
  };
  c.reference = [=](const std::vector<Array>& in) {
    double total = 0.0;
    for (const bool transposed : {false, true}) {
      for (std::int64_t i = 0; i < p.n; ++i) {
        const auto at = [&](int set, std::int64_t j) {
          const auto s = static_cast<std::size_t>(set);
          return transposed ? logit(in[s], in[s + 1], j, i, in[s + 2][0]) : logit(in[s], in[s + 1], i, j, in[s + 2][0]);
        };
        const double own = against_own(p.n, i, [&](std::int64_t j) { return at(0, j) - at(0, i); });
        const double taught = against_own(p.n, i, [&](std::int64_t j) { return at(3, j) - at(3, i); });
        for (std::int64_t j = 0; j < p.n; ++j) total += std::exp(at(3, j) - at(3, i) - taught) * (own - (at(0, j) - at(0, i)));
      }
    }
    return Array({}, total / (2.0 * static_cast<double>(p.n)));
  };
  c.bf16_tolerance = 0.0;
  c.cuda = true;
  return c;
}

void add_errors(OpCases& op) {
  op.errors.push_back({"features of different widths",
                       [] {
                         info_nce(zeros({4, 8}), zeros({4, 7}), scalar(1.0F));
                       },
                       {"info_nce", "[4,8]", "[4,7]"}});
  op.errors.push_back({"a row without its column",
                       [] {
                         InfoNceOptions o;
                         o.offset = 2;
                         info_nce(zeros({4, 8}), zeros({5, 8}), scalar(1.0F), o);
                       },
                       {"info_nce", "every row's own column must be there", "offset 2"}});
  op.errors.push_back({"ids of rows only",
                       [] {
                         InfoNceOptions o;
                         o.row_ids = arange(4);
                         info_nce(zeros({4, 8}), zeros({4, 8}), scalar(1.0F), o);
                       },
                       {"info_nce", "ids are needed of both"}});
  op.errors.push_back({"two biases",
                       [] {
                         sigmoid_loss(zeros({4, 8}), zeros({4, 8}), scalar(1.0F), zeros({2}));
                       },
                       {"sigmoid_loss", "one element", "[2]"}});
  op.errors.push_back({"bf16 features",
                       [] {
                         info_nce(zeros({4, 8}, DType::bf16), zeros({4, 8}, DType::bf16), scalar(1.0F));
                       },
                       {"info_nce", "must be f32", "bf16"}});
}

}  // namespace

OpCases op_cases_info_nce() {
  OpCases op;
  op.cases.push_back(info_nce_case("[1,8]", {1, 1, 8}));
  op.cases.push_back(info_nce_case("[2,3]", {2, 2, 3, 0, 10.0}));
  op.cases.push_back(info_nce_case("[5,7]", {5, 5, 7, 0, 14.0}));
  op.cases.push_back(info_nce_case("[37,9] in tiles of 16 x 11", {37, 37, 9, 0, 14.0, 0.5}, 1.0, 16, 11));
  op.cases.push_back(info_nce_case("[21,24] badly matched", {21, 21, 24, 0, 30.0, -0.8}));
  op.cases.push_back(info_nce_case("[9,40] nearly matched", {9, 9, 40, 0, 25.0, 0.97}, 1e5));
  op.cases.push_back(info_nce_case("[16,64] matched at 100", {16, 16, 64, 0, 100.0, 1.0}, 1e8));
  // At logit scale 100 a rounding of a cosine is 1e-5 of a probability: docs/numerics.md.
  op.cases.back().tolerance = op.cases.back().gradient_tolerance = 1e-4;
  op.cases.push_back(info_nce_case("[12,6] with equal ids", {12, 12, 6, 0, 14.0, 0.3, {1, 2, 1, 3, 4, 4, 4, 5, 6, 7, 1, 8}}, 1.0, 5, 7));
  op.cases.push_back(info_nce_case("[3,6] only equal ids", {3, 3, 6, 0, 14.0, 0.3, {4, 4, 4}}));
  op.cases.push_back(sigmoid_case("[1,8]", {1, 1, 8, 0, 10.0}, -10.0));
  op.cases.push_back(sigmoid_case("[5,7]", {5, 5, 7, 0, 10.0}, -3.0));
  op.cases.push_back(sigmoid_case("[4 of 11,7]", {4, 11, 7, 3, 10.0, 0.6}, -10.0));
  op.cases.push_back(sigmoid_case("[37,9] in tiles", {37, 37, 9, 0, 14.0, 0.5}, -1.0, 16, 11));
  op.cases.push_back(sigmoid_case("[12,6] with equal ids", {12, 12, 6, 0, 14.0, 0.3, {1, 2, 1, 3, 4, 4, 4, 5, 6, 7, 1, 8}}, -2.0, 5, 7));
  op.cases.push_back(distilled("[7,5]", {7, 7, 5, 0, 10.0, 0.3}, 6.0, 0, 0));
  op.cases.push_back(distilled("[37,9] in tiles", {37, 37, 9, 0, 14.0, 0.5}, 20.0, 16, 11));

  OpCase bench = info_nce_case("512 pairs [512,512]", {512, 512, 512, 0, 14.3, 0.5});
  for (CaseInput& input : bench.inputs) input.differentiable = false;  // differences of so large a reference would take minutes
  bench.bench = true;
  bench.flops = 512.0 * 512 * 512 * 2;
  bench.bytes = 512.0 * 512 * 8;
  op.cases.push_back(bench);
  add_errors(op);
  return op;
}

}  // namespace twinlens::test
