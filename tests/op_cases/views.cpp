#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

// A view moves elements: element i of the result is element from(i) of x.
OpCase make(const std::string& name, const Shape& shape, const Shape& result, std::function<Tensor(const Tensor&)> call,
            std::function<std::int64_t(std::int64_t)> from) {
  OpCase c;
  c.cuda = true;
  c.name = name;
  c.inputs = {random_input(shape, name)};
  c.call = [=](const std::vector<Tensor>& in) { return call(in[0]); };
  c.reference = [=](const std::vector<Array>& in) {
    Array y(result);
    for (std::int64_t i = 0; i < result.count(); ++i) y[i] = in[0][from(i)];
    return y;
  };
  c.tolerance = 0.0;
  return c;
}

}  // namespace

OpCases op_cases_views() {
  OpCases op;
  const auto same = [](std::int64_t i) { return i; };
  op.cases.push_back(make(
      "reshape", {2, 3, 5}, {6, 5},
      [](const Tensor& x) {
        return x.reshape({-1, 5});
      },
      same));
  op.cases.push_back(make(
      "reshape nothing", {0, 3}, {3, 0},
      [](const Tensor& x) {
        return x.reshape({3, 0});
      },
      same));
  op.cases.push_back(make(
      "squeeze and unsqueeze", {2, 1, 5}, {2, 5, 1}, [](const Tensor& x) { return x.squeeze(1).unsqueeze(-1); }, same));
  op.cases.push_back(make(
      "transpose", {3, 67}, {67, 3}, [](const Tensor& x) { return x.transpose(0, 1); }, [](std::int64_t i) { return i % 3 * 67 + i / 3; }));
  op.cases.push_back(make(
      "permute", {2, 3, 5}, {5, 2, 3},
      [](const Tensor& x) {
        return x.permute({2, 0, 1});
      },
      [](std::int64_t i) { return i % 6 * 5 + i / 6; }));
  op.cases.push_back(make(
      "slice", {4, 7}, {4, 3}, [](const Tensor& x) { return x.slice(1, 2, 5); }, [](std::int64_t i) { return i / 3 * 7 + 2 + i % 3; }));
  op.cases.push_back(make(
      "select", {2, 3, 5}, {2, 5}, [](const Tensor& x) { return x.select(1, 2); }, [](std::int64_t i) { return i / 5 * 15 + 10 + i % 5; }));
  op.cases.push_back(make(
      "expand", {3, 1}, {2, 3, 4},
      [](const Tensor& x) {
        return x.expand({2, 3, 4});
      },
      [](std::int64_t i) { return i / 4 % 3; }));
  op.cases.push_back(make(
      "clone", {3, 7}, {3, 7}, [](const Tensor& x) { return x.clone(); }, same));
  op.cases.push_back(make(
      "dense of a transpose", {3, 7}, {7, 3}, [](const Tensor& x) { return dense(x.transpose(0, 1)); },
      [](std::int64_t i) { return i % 3 * 7 + i / 3; }));
  op.cases.push_back(make(
      "dense of a slice whose rows start between words", {4, 14}, {4, 8}, [](const Tensor& x) { return dense(x.slice(1, 4, 12)); },
      [](std::int64_t i) { return i / 8 * 14 + 4 + i % 8; }));
  op.cases.push_back(make(
      "to bf16", {5, 33}, {5, 33}, [](const Tensor& x) { return x.to(DType::bf16); }, same));
  op.cases.back().tolerance = op.cases.back().gradient_tolerance = 4e-3;  // half a unit in 8 bits
  op.cases.push_back(make(
      "to f32", {5, 33}, {5, 33}, [](const Tensor& x) { return x.to(DType::f32); }, same));
  for (OpCase& c : op.cases) c.gradient_tolerance = std::max(c.gradient_tolerance, 1e-8);

  op.errors.push_back({"other count", [] { zeros({2, 3}).reshape({4}); }, {"reshape", "[4]", "[2,3]"}});
  op.errors.push_back({"order", [] { zeros({2, 3}).permute({0, 0}); }, {"permute", "every dimension once", "[2,3]"}});
  op.errors.push_back({"slice", [] { zeros({2, 3}).slice(1, 2, 4); }, {"slice", "[2,3]"}});
  op.errors.push_back({"expand", [] { zeros({2, 3}).expand({2, 4}); }, {"expand", "[2,3]"}});
  return op;
}

}  // namespace twinlens::test
