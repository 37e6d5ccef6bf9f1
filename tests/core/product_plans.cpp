// However a product is cut into tasks (kernels/cpu/gemm/plan.h), whatever its operands lie like and however many threads there are: the
// same bits. One or two cuts of every kind, with every instruction set.

#include <catch2/catch.hpp>

#include "kernels/cpu/gemm/plan.h"
#include "tests/kernels/every_set.h"
#include "tests/support/op_case.h"
#include "tests/support/product_error.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

struct Problem {
  std::int64_t rows, depth, cols;
  const char* what;
};
// What they are for two or three threads; f32 and bf16 in pairs may differ.
constexpr Problem kProblems[] = {
    {40, 90, 50, "by one thread"},
    {600, 96, 40, "all of b stays in the second-level cache"},
    {300, 1601, 130, "a is the larger one; two blocks of the depth, or one of an odd number"},
    {2085, 1540, 20, "more rows than a group has"},
    {100, 400, 700, "columns are shared out"},
    {60, 40, 3000, "many columns: the last tasks are halves"},
    {141, 2048, 512, "a small c: f32 has two blocks of the depth side by side, bf16 one"},
    {30, 5001, 70, "a small c and a great depth"},
    {330, 200, 250, "tiles are shared out"},
};

Tensor lying_across(const Tensor& x) { return dense(x.transpose(0, 1)).transpose(0, 1); }

void check(const Problem& p, Compute compute) {
  INFO(p.rows << " x " << p.depth << " x " << p.cols << ": " << p.what << (compute == Compute::bf16 ? ", bf16" : ", f32"));
  // Numbers that bf16 has, so that both forms of an operand hold the same.
  const Tensor a_low = test::tensor_of(test::random_input({p.rows, p.depth}, "a")).to(DType::bf16), a = a_low.to(DType::f32);
  const Tensor b_low = test::tensor_of(test::random_input({p.depth, p.cols}, "b")).to(DType::bf16), b = b_low.to(DType::f32);
  MatmulOptions o;
  o.compute = compute;
  o.out = DType::f32;
  const Tensor c = matmul(a, b, o);
  CHECK(test::product_error(c, a, b, (p.rows - 1) / 2) < 1e-6);  // (of the first, middle and last row, or the one before)
  const std::vector<float> bits = c.to_vector();
  const auto same = [&](const Tensor& left, const Tensor& right) { CHECK(matmul(left, right, o).to_vector() == bits); };
  same(lying_across(a), b);
  same(a, lying_across(b));
  same(lying_across(a), lying_across(b));
  if (compute == Compute::bf16) {
    same(a_low, b_low);
    same(lying_across(a_low), b_low);
    same(a_low, lying_across(b_low));
  }
  const int threads = thread_count();
  for (const int other : {1, 3}) {
    set_thread_count(other);
    same(a, b);
    same(lying_across(a), b);
  }
  set_thread_count(threads);
}

TEST_CASE("products have the same bits however they are cut and however their operands lie") {
  on_every_set([] {
    for (const Problem& p : kProblems) {
      check(p, Compute::fp32);
      check(p, Compute::bf16);
    }
  });
}

// No op has such an operand, but nothing refuses it.
TEST_CASE("windows are read in place as the columns of b, too") {
  on_every_set([] {
    const Tensor map = test::tensor_of(test::random_input({1, 10, 10, 300}, "map")), a = test::tensor_of(test::random_input({4, 300}, "a"));
    const Tensor pixels = map.reshape({100, 300});
    Tensor c = empty({4, 100});
    Matmul m;
    m.a = {a.raw(), DType::f32, 300, false, 0, {}};
    m.b = {map.raw(), DType::f32, 0, true, 0, {1, 10, 10, 300, 10, 10, 1, 1, 1, 0, 1}};
    m.c = {c.raw(), DType::f32, 4, 100, 100, nullptr};
    m.depth = 300;
    const Tensor scratch = empty({scratch_bytes(m)}, DType::u8);
    m.scratch = const_cast<void*>(scratch.raw());
    run(current_stream(kCpu), m);
    CHECK(c.to_vector() == matmul(a, pixels, {.transpose_b = true}).to_vector());
  });
}

TEST_CASE("tasks of a product have every unit once; none is empty or too large") {
  const int before = thread_count();
  for (const int threads : {1, 2, 3, 7, 64}) {
    set_thread_count(threads);
    for (const std::int64_t most : {1, 2, 3, 8, 16}) {
      std::int64_t wrong = 0;
      for (std::int64_t units = 1; units < 600; ++units) {
        const gemm::Tasks tasks(units, most);
        std::int64_t next = 0;
        for (std::int64_t task = 0; task < tasks.count(); ++task) {
          const std::int64_t size = tasks.begin(task + 1) - tasks.begin(task);
          wrong += tasks.begin(task) != next || size < 1 || size > most;
          next += size;
        }
        wrong += next != units;
      }
      INFO("at most " << most << " a task, " << threads << " threads");
      CHECK(wrong == 0);
    }
  }
  set_thread_count(before);
}

}  // namespace
}  // namespace twinlens
