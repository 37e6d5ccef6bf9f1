#include "core/src/ops/streamed_logits.h"

#include "twinlens/core/check.h"

namespace twinlens {
namespace {

// Rows [begin, ...) of a matrix of features as an operand.
MatmulOperand rows_from(const Tensor& x, std::int64_t begin, bool transposed) {
  return {floats(x) + begin * x.strides()[0], DType::f32, x.strides()[0], transposed, 0};
}

// Large enough that packing features for a tile's products is a small part of them. On the CPU a multiple of the columns that threads
// take at a time, twice over (docs/decisions/0012).
std::int64_t side_of_tile(Device device) { return device.is_cuda() ? 4096 : 1536; }

}  // namespace

LogitTiles::LogitTiles(std::int64_t rows, std::int64_t columns, Device device, const InfoNceOptions& options)
    : offset(options.offset),
      row_ids(options.row_ids.defined() ? dense(options.row_ids) : Tensor{}),
      column_ids(options.column_ids.defined() ? dense(options.column_ids) : Tensor{}),
      rows_(rows),
      columns_(columns),
      tile_rows_(options.tile_rows > 0 ? options.tile_rows : side_of_tile(device)),
      tile_columns_(options.tile_columns > 0 ? options.tile_columns : side_of_tile(device)) {}

Tensor LogitTiles::memory(Device device) const {
  return empty({least(tile_rows_, rows_), least(tile_columns_, columns_)}, DType::f32, device);
}

InfoNceTile LogitTiles::kernel_tile(const LogitTile& tile, const Rows& logits) const {
  const auto ids = [](const Tensor& x) { return x.defined() ? static_cast<const std::int64_t*>(x.raw()) : nullptr; };
  return {logits, tile.row, tile.column, offset, floats(logit_scale), ids(row_ids), ids(column_ids)};
}

Rows LogitTile::cosines(const Tensor& u, const Tensor& v, const Tensor& memory) const {
  const Rows tile{memory.raw(), DType::f32, rows, columns, columns, nullptr};
  Matmul m;
  m.a = rows_from(u, row, false);
  m.b = rows_from(v, column, true);
  m.c = tile;
  m.depth = u.size(1);
  run_product(u.device(), m);
  return tile;
}

void LogitTile::add_gradients(const Rows& tile, const Tensor& u, const Tensor& v, const Tensor& du, const Tensor& dv) const {
  Matmul m;
  m.a = {tile.data, DType::f32, tile.stride, false, 0};
  m.accumulate = true;
  if (du.defined()) {
    m.b = rows_from(v, column, false);
    m.c = {floats(du) + row * du.strides()[0], DType::f32, rows, du.size(1), du.strides()[0], nullptr};
    m.depth = columns;
    run_product(u.device(), m);
  }
  if (!dv.defined()) return;
  m.a.transposed = true;
  m.b = rows_from(u, row, false);
  m.c = {floats(dv) + column * dv.strides()[0], DType::f32, columns, dv.size(1), dv.strides()[0], nullptr};
  m.depth = rows;
  run_product(u.device(), m);
}

void check_streamed_loss(const char* op, const Tensor& rows, const Tensor& columns, const Tensor& logit_scale, const InfoNceOptions& o) {
  check(rows.rank() == 2 && columns.rank() == 2 && rows.size(1) == columns.size(1), op, "needs rows (n, d) and columns (N, d)",
        {{"rows", rows}, {"columns", columns}});
  check_dtype(rows.dtype() == DType::f32 && columns.dtype() == DType::f32 && logit_scale.dtype() == DType::f32, op,
              "features and logit scale must be f32", {{"rows", rows}, {"columns", columns}, {"logit_scale", logit_scale}});
  check_same_device(op, {{"rows", rows}, {"columns", columns}, {"logit_scale", logit_scale}});
  check(logit_scale.count() == 1, op, "the logit scale must have one element", {{"logit_scale", logit_scale}});
  check(o.offset >= 0 && o.offset <= columns.size(0) - rows.size(0), op,
        "every row's own column must be there: offset " + std::to_string(o.offset), {{"rows", rows}, {"columns", columns}});
  check(o.row_ids.defined() == o.column_ids.defined(), op, "ids are needed of both rows and columns, or of neither");
  if (o.row_ids.defined()) {
    check_same_device(op, {{"rows", rows}, {"row_ids", o.row_ids}, {"column_ids", o.column_ids}});
    check_dtype(o.row_ids.dtype() == DType::i64 && o.column_ids.dtype() == DType::i64, op, "ids must be i64",
                {{"row_ids", o.row_ids}, {"column_ids", o.column_ids}});
    check(o.row_ids.shape() == Shape{rows.size(0)} && o.column_ids.shape() == Shape{columns.size(0)}, op, "one id per row and column",
          {{"rows", rows}, {"row_ids", o.row_ids}, {"columns", columns}, {"column_ids", o.column_ids}});
  }
  check(o.tile_rows >= 0 && o.tile_columns >= 0, op, "a tile cannot have a negative size");
}

}  // namespace twinlens
