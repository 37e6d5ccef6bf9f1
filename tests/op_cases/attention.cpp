#include <cmath>

#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

struct Setup {
  std::vector<std::int64_t> query, key;  // offsets
  std::int64_t heads = 1, head_dim = 8;
  bool causal = false;
  Array bias;  // (H or 1, Tq, Tk) or empty
  double scale = 0.0;
};

// The textbook form, one score matrix per sequence and head. q, k, v (rows, heads * head_dim) at a column of arrays with `stride` columns.
Array reference(const Setup& s, const Array& q, const Array& k, const Array& v, std::int64_t k_column = 0, std::int64_t v_column = 0) {
  const std::int64_t d = s.head_dim, c = s.heads * d, q_stride = q.cols(), k_stride = k.cols(), v_stride = v.cols();
  Array y({s.query.back(), c});
  const double scale = s.scale != 0.0 ? s.scale : 1.0 / std::sqrt(static_cast<double>(d));
  for (std::size_t n = 0; n + 1 < s.query.size(); ++n) {
    const std::int64_t q0 = s.query[n], tq = s.query[n + 1] - q0, k0 = s.key[n], tk = s.key[n + 1] - k0;
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t i = 0; i < tq; ++i) {
        const std::int64_t seen = s.causal ? std::max<std::int64_t>(0, std::min(tk, i + 1 + tk - tq)) : tk;
        std::vector<double> p(static_cast<std::size_t>(seen));
        double top = -INFINITY, sum = 0.0;
        for (std::int64_t j = 0; j < seen; ++j) {
          double dot = 0.0;
          for (std::int64_t x = 0; x < d; ++x) dot += q[(q0 + i) * q_stride + h * d + x] * k[(k0 + j) * k_stride + k_column + h * d + x];
          dot *= scale;
          if (!s.bias.v.empty()) dot += s.bias[((s.bias.shape[0] == 1 ? 0 : h) * tq + i) * tk + j];
          p[static_cast<std::size_t>(j)] = dot;
          top = std::max(top, dot);
        }
        if (top == -INFINITY) continue;
        for (double& x : p) sum += x = std::exp(x - top);
        for (std::int64_t j = 0; j < seen; ++j) {
          const double weight = p[static_cast<std::size_t>(j)] / sum;
          for (std::int64_t x = 0; x < d; ++x) y[(q0 + i) * c + h * d + x] += weight * v[(k0 + j) * v_stride + v_column + h * d + x];
        }
      }
    }
  }
  return y;
}

AttentionOptions options_of(const Setup& s, Device device) {
  AttentionOptions o;
  o.heads = static_cast<int>(s.heads);
  o.query_offsets = SequenceOffsets(s.query, device);
  if (s.key != s.query) o.key_offsets = SequenceOffsets(s.key, device);
  o.causal = s.causal;
  o.scale = s.scale;
  if (!s.bias.v.empty()) o.bias = from_vector(std::vector<float>(s.bias.v.begin(), s.bias.v.end()), s.bias.shape).to(device);
  return o;
}

double flops_of(const Setup& s) {
  double scores = 0.0;
  for (std::size_t n = 0; n + 1 < s.query.size(); ++n) {
    scores += static_cast<double>(s.query[n + 1] - s.query[n]) * static_cast<double>(s.key[n + 1] - s.key[n]);
  }
  return 4.0 * scores * static_cast<double>(s.heads * s.head_dim) * (s.causal ? 0.5 : 1.0);
}

OpCase make_separate(const std::string& name, const Setup& s, double size = 1.0) {
  OpCase c;
  c.name = name;
  const std::int64_t columns = s.heads * s.head_dim;
  c.inputs = {random_input({s.query.back(), columns}, name + "q", size), random_input({s.key.back(), columns}, name + "k"),
              random_input({s.key.back(), columns}, name + "v")};
  c.call = [s](const std::vector<Tensor>& in) { return attention(in[0], in[1], in[2], options_of(s, in[0].device())); };
  c.reference = [s](const std::vector<Array>& in) { return reference(s, in[0], in[1], in[2]); };
  return c;
}

OpCase make_joint(const std::string& name, Setup s) {
  s.key = s.query;
  OpCase c;
  c.name = name;
  const std::int64_t columns = s.heads * s.head_dim;
  c.inputs = {random_input({s.query.back(), 3 * columns}, name)};
  c.call = [s](const std::vector<Tensor>& in) { return attention_qkv(in[0], options_of(s, in[0].device())); };
  c.reference = [s, columns](const std::vector<Array>& in) { return reference(s, in[0], in[0], in[0], columns, 2 * columns); };
  c.flops = flops_of(s);
  c.bytes = 16.0 * static_cast<double>(s.query.back() * columns);
  return c;
}

std::vector<std::int64_t> equal(std::int64_t sequences, std::int64_t length) {
  std::vector<std::int64_t> out;
  for (std::int64_t s = 0; s <= sequences; ++s) out.push_back(s * length);
  return out;
}

Setup self(std::vector<std::int64_t> query, std::int64_t heads, std::int64_t head_dim, bool causal) {
  Setup s;
  s.key = query;
  s.query = std::move(query);
  s.heads = heads;
  s.head_dim = head_dim;
  s.causal = causal;
  return s;
}

Setup crossed(std::vector<std::int64_t> query, std::vector<std::int64_t> key, std::int64_t heads, std::int64_t head_dim, bool causal) {
  Setup s = self(std::move(query), heads, head_dim, causal);
  s.key = std::move(key);
  return s;
}

void add_joint_cases(OpCases& op) {
  op.cases.push_back(make_joint("no sequences", self({0}, 2, 4, false)));
  op.cases.push_back(make_joint("one token, one column", self({0, 1}, 1, 1, true)));
  op.cases.push_back(make_joint("empty sequences among others", self({0, 0, 3, 3, 8}, 2, 5, false)));
  op.cases.push_back(make_joint("image 2 x 50, heads of 64", self(equal(2, 50), 1, 64, false)));
  op.cases.push_back(make_joint("text 2 x 77 causal, heads of 64", self(equal(2, 77), 1, 64, true)));
  op.cases.push_back(make_joint("packed captions causal", self({0, 5, 13, 38, 39, 48, 65}, 3, 64, true)));
  op.cases.push_back(make_joint("197 tokens", self(equal(1, 197), 1, 32, false)));
  op.cases.push_back(make_joint("257 tokens, causal", self(equal(1, 257), 1, 16, true)));
  for (const std::int64_t d : {3, 17, 32, 48, 80, 88, 104, 112}) {
    op.cases.push_back(make_joint("head dim " + std::to_string(d), self({0, 21, 54}, 2, d, d % 3 == 0)));
  }
  op.cases.push_back(make_joint("several key blocks", self({0, 45}, 1, 1200, false)));
  op.cases.push_back(make_joint("several key blocks, causal", self({0, 45, 60}, 1, 1200, true)));
  OpCase bench = make_joint("ViT-B/32 image 1 x 50, 12 heads of 64", self(equal(1, 50), 12, 64, false));
  bench.bench = true;
  op.cases.push_back(bench);
}

void add_separate_cases(OpCases& op) {
  op.cases.push_back(make_separate("one pooled query", crossed({0, 1, 2, 3}, {0, 50, 57, 58}, 2, 32, false)));
  op.cases.push_back(make_separate("more keys than queries, causal", crossed({0, 4, 11}, {0, 9, 40}, 2, 16, true)));
  op.cases.push_back(make_separate("queries that see nothing", crossed({0, 40, 43, 45}, {0, 3, 3, 20}, 1, 8, true)));
  Setup biased = crossed(equal(2, 9), equal(2, 21), 3, 12, false);
  biased.bias = random_input({3, 9, 21}, "bias").values;
  op.cases.push_back(make_separate("bias of every head", biased));
  biased.bias = random_input({1, 9, 21}, "bias").values;
  for (std::int64_t j = 0; j < 21; ++j) biased.bias[4 * 21 + j] = -INFINITY;
  for (std::int64_t j = 5; j < 9; ++j) biased.bias[7 * 21 + j] = -INFINITY;
  biased.causal = true;
  biased.scale = 0.7;
  op.cases.push_back(make_separate("one bias with masked keys and a blind query", biased));
  // Scores near +-300: without the shift by the largest they overflow. f32 scores and log-sum-exps of that size carry 3e-5 each, and the
  // gradient of a row that is nearly one-hot is their difference.
  OpCase large = make_separate("large scores", self({0, 7, 20}, 2, 64, false), 100.0);
  large.tolerance = 1e-4;
  large.gradient_tolerance = 1e-3;
  large.bf16_tolerance = 0.0;
  op.cases.push_back(large);
}

// Long enough for several tiles of keys and, in two bytes, for tensor cores; values only where differences would be slow.
void add_long_cases(OpCases& op) {
  for (const std::int64_t d : {64, 88, 128}) {
    op.cases.push_back(make_joint("two lengths, heads of " + std::to_string(d), self({0, 131, 197}, 2, d, d == 88)));
  }
  op.cases.push_back(make_joint("577 tokens", self(equal(1, 577), 1, 64, false)));
  op.cases.push_back(make_separate("77 queries, 600 keys, causal", crossed({0, 77}, {0, 600}, 1, 64, true)));
}

}  // namespace

OpCases op_cases_attention() {
  OpCases op;
  add_joint_cases(op);
  add_separate_cases(op);
  add_long_cases(op);
  for (OpCase& c : op.cases) c.cuda = true;
  const auto call = [](const Shape& q, const Shape& k, AttentionOptions o) { attention(zeros(q), zeros(k), zeros(k), o); };
  AttentionOptions o;
  o.heads = 2;
  o.query_offsets = equal_offsets(2, 3);
  op.errors.push_back({"widths differ", [=] { call({6, 8}, {6, 10}, o); }, {"attention", "q must be (Nq, H*D)", "[6,8]", "[6,10]"}});
  op.errors.push_back({"heads", [=] { call({6, 7}, {6, 7}, o); }, {"attention", "heads = 2 must divide the 7 columns", "[6,7]"}});
  op.errors.push_back({"offsets too short",
                       [=] {
                         call({7, 8}, {6, 8}, o);
                       },
                       {"query_offsets must go from 0 to the number of rows", "[7,8]", "[3]"}});
  AttentionOptions wild = o;
  wild.key_offsets = from_vector(std::vector<std::int64_t>{0, 9, 6}, {3});
  op.errors.push_back({"offset out of range", [=] { call({6, 8}, {6, 8}, wild); }, {"key_offsets[1] = 9 must lie in [0,6]"}});
  AttentionOptions biased = o;
  biased.bias = zeros({2, 3, 4});
  op.errors.push_back({"bias", [=] { call({6, 8}, {6, 8}, biased); }, {"bias must be (heads or 1, Tq, Tk)", "[6,8]", "[2,3,4]"}});
  op.errors.push_back({"qkv", [=] { attention_qkv(zeros({6, 8}), o); }, {"attention_qkv: qkv must be (N, 3*H*D)", "[6,8]"}});
  op.errors.push_back({"no offsets", [] { attention_qkv(zeros({6, 6}), {}); }, {"attention_qkv", "query_offsets is missing", "[6,6]"}});
  return op;
}

}  // namespace twinlens::test
