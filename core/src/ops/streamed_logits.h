#pragma once
// What the streamed losses share: tiles of cosines made by products, and gradient tiles turned into feature gradients. Private to core.

#include "core/src/ops/elements.h"
#include "core/src/ops/product.h"

#include "twinlens/core/ops.h"
#include "twinlens/kernels/info_nce.h"

namespace twinlens {

inline double* doubles(const Tensor& x) { return static_cast<double*>(x.raw()); }

// One tile of the (n, N) logits. `memory` is reused from tile to tile.
struct LogitTile {
  std::int64_t row, rows, column, columns;

  // <u_i, v_j> of the tile into `memory`, as dense rows. u (n, d), v (N, d) are dense rows.
  Rows cosines(const Tensor& u, const Tensor& v, const Tensor& memory) const;
  // du += tile v, of the tile's rows and columns; dv += tile^T u. Absent ones are passed over.
  void add_gradients(const Rows& tile, const Tensor& u, const Tensor& v, const Tensor& du, const Tensor& dv) const;
};

class LogitTiles {
 public:
  LogitTiles(std::int64_t rows, std::int64_t columns, Device device, const InfoNceOptions& options);
  // Memory for one tile.
  Tensor memory(Device device) const;
  // f(tile) from left to right, then down.
  template <class F>
  void each(F&& f) const {
    for (std::int64_t row = 0; row < rows_; row += tile_rows_) {
      for (std::int64_t column = 0; column < columns_; column += tile_columns_) {
        f(LogitTile{row, least(tile_rows_, rows_ - row), column, least(tile_columns_, columns_ - column)});
      }
    }
  }
  InfoNceTile kernel_tile(const LogitTile& tile, const Rows& logits) const;

  std::int64_t offset = 0;
  Tensor row_ids, column_ids;  // dense or absent
  Tensor logit_scale;          // (1 element)

 private:
  static std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  std::int64_t rows_, columns_, tile_rows_, tile_columns_;
};

// The checks that both losses need.
void check_streamed_loss(const char* op, const Tensor& rows, const Tensor& columns, const Tensor& logit_scale,
                         const InfoNceOptions& options);

}  // namespace twinlens
