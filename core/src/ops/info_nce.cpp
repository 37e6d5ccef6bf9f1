// The symmetric InfoNCE loss from tiles of logits: one sweep for the statistics, one for the gradients. The mathematics stands in the
// kernel's header.

#include <sstream>
#include <vector>

#include "core/src/ops/streamed_logits.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"

namespace twinlens {
namespace {

// Logits of one pair of feature matrices and what was found out about them.
struct Side {
  Tensor u, v, logit_scale;
  Tensor row_high, row_low, column_high, column_low;
  Tensor row_softmax, column_softmax;  // (3, n), (3, N): shift, factor, loss
  bool defined() const { return u.defined(); }
  InfoNceOwn row_own() const { return {floats(row_high), floats(row_low)}; }
  InfoNceOwn column_own() const { return {floats(column_high), floats(column_low)}; }
  static InfoNceSoftmax softmax_of(const Tensor& x) {
    const std::int64_t n = x.size(1);
    return {floats(x), floats(x) + n, floats(x) + 2 * n};
  }
  InfoNceSoftmax rows() const { return softmax_of(row_softmax); }
  InfoNceSoftmax columns() const { return softmax_of(column_softmax); }
};

Side side_of(const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const InfoNceOptions& options) {
  const std::int64_t n = rows.size(0);
  const Device device = rows.device();
  Side s;
  s.u = dense_rows(rows.detach());
  s.v = dense_rows(columns.detach());
  s.logit_scale = dense(logit_scale.detach());
  s.row_high = empty({n}, DType::f32, device);
  s.row_low = empty({n}, DType::f32, device);
  run(current_stream(device), InfoNceDiagonal{const_rows_of(s.u), const_rows_of(s.v), options.offset, floats(s.logit_scale),
                                              floats(s.row_high), floats(s.row_low)});
  s.column_high = options.ranks.gather ? options.ranks.gather(s.row_high) : s.row_high;
  s.column_low = options.ranks.gather ? options.ranks.gather(s.row_low) : s.row_low;
  check(s.column_high.size(0) == columns.size(0), "info_nce", "every column must be a pair of some rank: (n, d) and (N, d) differ",
        {{"rows", rows}, {"columns", columns}});
  return s;
}

InfoNceTeacher teacher_tile(const Side& teacher, const LogitTile& tile, const Tensor& memory) {
  if (!teacher.defined()) return {};
  InfoNceTeacher t;
  t.logits = tile.cosines(teacher.u, teacher.v, memory);
  t.logit_scale = floats(teacher.logit_scale);
  t.rows = teacher.rows();
  t.columns = teacher.columns();
  return t;
}

// The first sweep: losses of rows and columns, and the loss in all.
Tensor first_sweep(Side& s, const Side& teacher, const LogitTiles& tiles, const InfoNceOptions& options) {
  const std::int64_t n = s.u.size(0), columns = s.v.size(0);
  const Device device = s.u.device();
  Stream& stream = current_stream(device);
  const auto filled = [&](std::int64_t count, double value) { return full({count}, value, DType::f32, device); };
  Tensor row_max = filled(n, InfoNceTile::kNothing), row_sum = filled(n, 0.0);
  Tensor column_max = filled(columns, InfoNceTile::kNothing), column_sum = filled(columns, 0.0);
  Tensor row_cross, column_cross, teacher_memory;
  if (teacher.defined()) {
    row_cross = filled(n, 0.0);
    column_cross = filled(columns, 0.0);
    teacher_memory = tiles.memory(device);
  }
  const Tensor memory = tiles.memory(device);
  const InfoNceSums row_sums{floats(row_max), floats(row_sum)};
  tiles.each([&](const LogitTile& tile) {
    const Rows cosines = tile.cosines(s.u, s.v, memory);
    run(stream, InfoNceStatistics{tiles.kernel_tile(tile, cosines),
                                  s.row_own(),
                                  s.column_own(),
                                  row_sums,
                                  {floats(column_max), floats(column_sum)},
                                  teacher_tile(teacher, tile, teacher_memory),
                                  teacher.defined() ? floats(row_cross) : nullptr,
                                  teacher.defined() ? floats(column_cross) : nullptr});
  });
  if (options.ranks.merge_columns) options.ranks.merge_columns(column_max, column_sum);
  s.row_softmax = empty({3, n}, DType::f32, device);
  s.column_softmax = empty({3, columns}, DType::f32, device);
  Tensor loss = empty({}, DType::f32, device);
  run(stream, InfoNceLoss{n,
                          columns,
                          options.offset,
                          s.row_own(),
                          s.column_own(),
                          row_sums,
                          {floats(column_max), floats(column_sum)},
                          teacher.defined() ? floats(row_cross) : nullptr,
                          teacher.defined() ? floats(column_cross) : nullptr,
                          s.rows(),
                          s.columns(),
                          floats(loss)});
  return loss;
}

[[noreturn]] void broken(const char* what, double by, double allowed) {
  std::ostringstream text;
  text << "info_nce: " << what << " is off by " << by << " of its size, more than rounding (" << allowed
       << "); backward; the features or the gradients' memory changed while the loss was computed, or the machine computes wrongly: "
          "compare with --no-stream-loss";
  throw NumericError(text.str());
}

struct InfoNceNode final : Node {
  std::vector<Saved> kept;  // what `side`, `teacher` and `tiles` were made of
  Side side, teacher;
  LogitTiles tiles;

  explicit InfoNceNode(LogitTiles t) : tiles(std::move(t)) {}
  const char* name() const override { return "info_nce"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    for (const Saved& tensor : kept) tensor.get();  // (says so when it was changed)
    const std::int64_t n = side.u.size(0), d = side.u.size(1);
    const Device device = side.u.device();
    Stream& stream = current_stream(device);
    const float weight = n > 0 ? static_cast<float>(0.5 / static_cast<double>(n)) : 0.0F;
    const Tensor upstream = dense(dy);
    Tensor du, dv, teacher_memory, sums = zeros({n, 8}, DType::f32, device);  // (n, 4) doubles
    if (grads.wants(0)) du = zeros({n, d}, DType::f32, device);
    if (grads.wants(1)) dv = zeros({side.v.size(0), d}, DType::f32, device);
    if (teacher.defined()) teacher_memory = tiles.memory(device);
    const Tensor memory = tiles.memory(device);
    tiles.each([&](const LogitTile& tile) {
      const Rows cosines = tile.cosines(side.u, side.v, memory);
      run(stream, InfoNceGradient{tiles.kernel_tile(tile, cosines), side.row_own(), side.column_own(), side.rows(), side.columns(),
                                  teacher_tile(teacher, tile, teacher_memory), weight, floats(upstream), doubles(sums)});
      tile.add_gradients(cosines, side.u, side.v, du, dv);
    });
    Tensor dscale = empty({}, DType::f32, device), identities = empty({4}, DType::f32, device);  // (2) doubles
    run(stream, InfoNceFinish{const_rows_of(side.u), du.defined() ? const_rows_of(du) : ConstRows{}, side.v.size(0), tiles.offset,
                              floats(side.logit_scale), side.rows().loss, side.columns().loss,
                              teacher.defined() ? teacher.rows().loss : nullptr, teacher.defined() ? teacher.columns().loss : nullptr,
                              weight, floats(upstream), doubles(sums), device.is_cuda(), floats(dscale), doubles(identities)});
    if (!device.is_cuda()) check_identities(doubles(identities));
    if (du.defined()) grads.add(0, std::move(du));
    if (dv.defined()) grads.add(1, std::move(dv));
    grads.add(2, dscale.reshape(input_shapes[2]));
  }

  void release() override {
    kept.clear();
    side = teacher = Side{};
  }

 private:
  static void check_identities(const double* identities) {
    // (NaN passes: it is the business of whoever looks at the loss.)
    if (identities[0] > InfoNceFinish::kBroken)
      broken("the sum of the logits' gradient, which is 0,", identities[0], InfoNceFinish::kBroken);
    if (identities[1] > InfoNceFinish::kBroken) {
      broken("the gradient of the logit scale, computed from the features' gradient,", identities[1], InfoNceFinish::kBroken);
    }
  }
};

}  // namespace

Tensor info_nce(const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const InfoNceOptions& options) {
  check_streamed_loss("info_nce", rows, columns, logit_scale, options);
  const bool taught = options.teacher_rows.defined();
  check(taught == options.teacher_columns.defined() && taught == options.teacher_logit_scale.defined(), "info_nce",
        "a teacher needs rows, columns and a logit scale");
  check((options.ranks.gather == nullptr) == (options.ranks.merge_columns == nullptr), "info_nce",
        "ranks need both functions, gather and merge_columns, or neither", {{"rows", rows}});
  LogitTiles tiles(rows.size(0), columns.size(0), rows.device(), options);
  Side side, teacher;
  Tensor loss;
  {
    const NoGrad guard;
    if (taught) {
      check_streamed_loss("info_nce", options.teacher_rows, options.teacher_columns, options.teacher_logit_scale, options);
      check(options.teacher_rows.size(0) == rows.size(0) && options.teacher_columns.size(0) == columns.size(0), "info_nce",
            "the teacher must have the same pairs", {{"rows", rows}, {"teacher_rows", options.teacher_rows}});
      check(!options.row_ids.defined(), "info_nce", "a teacher's targets say what is equal: ids are not for it");
      check(!options.ranks.merge_columns, "info_nce", "a teacher is not supported over several ranks");
      teacher = side_of(options.teacher_rows, options.teacher_columns, options.teacher_logit_scale, options);
      tiles.logit_scale = teacher.logit_scale;
      first_sweep(teacher, Side{}, tiles, options);
    }
    side = side_of(rows, columns, logit_scale, options);
    tiles.logit_scale = side.logit_scale;
    loss = first_sweep(side, teacher, tiles, options);
  }
  if (!needs_grad({&rows, &columns, &logit_scale})) return loss;
  auto node = std::make_shared<InfoNceNode>(std::move(tiles));
  for (const Named& used :
       {Named{"rows", rows}, Named{"columns", columns}, Named{"logit_scale", logit_scale}, Named{"row_ids", options.row_ids},
        Named{"column_ids", options.column_ids}, Named{"teacher_rows", options.teacher_rows},
        Named{"teacher_columns", options.teacher_columns}, Named{"teacher_logit_scale", options.teacher_logit_scale}}) {
    node->kept.emplace_back(used.name, used.tensor);
  }
  node->side = std::move(side);
  node->teacher = std::move(teacher);
  return record(loss, std::move(node), {&rows, &columns, &logit_scale});
}

}  // namespace twinlens
