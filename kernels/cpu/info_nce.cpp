#include "twinlens/kernels/info_nce.h"

#include "kernels/cpu/vec/functions.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr float kLeftOut = -1e30F;          // a logit that does not count: below any maximum, and finite
constexpr std::int64_t kRowsOfAChunk = 16;  // of a tile, for one thread at a time
constexpr std::int64_t kStrip = 256;        // columns of a tile, for one thread at a time
constexpr std::int64_t kRowBlock = 128;     // rows whose column sums are added up before they join the others'

TWINLENS_INLINE float exp_of(const float* logarithm) { return static_cast<float>(__builtin_exp(static_cast<double>(*logarithm))); }
// 1 - e^-loss
TWINLENS_INLINE double missing(float loss) { return -__builtin_expm1(-static_cast<double>(loss)); }

template <class F>
TWINLENS_INLINE void for_rows(std::int64_t rows, std::int64_t grain, F&& f) {
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

// The place of row r's own column in the tile, or -1.
TWINLENS_INLINE std::int64_t own_place(const InfoNceTile& t, std::int64_t r) {
  const std::int64_t c = t.first_row + r + t.offset - t.first_column;
  return c >= 0 && c < t.logits.cols ? c : -1;
}

// Cosines that do not count become so low that scaling makes them kLeftOut or less.
TWINLENS_INLINE void leave_out(const InfoNceTile& t, std::int64_t r, float* x) {
  if (t.row_ids == nullptr) return;
  const std::int64_t id = t.row_ids[t.first_row + r];
  const std::int64_t* ids = t.column_ids + t.first_column;
  const std::int64_t own = own_place(t, r);
  const float own_cosine = own >= 0 ? x[own] : 0.0F;
  for (std::int64_t j = 0; j < t.logits.cols; ++j) x[j] = ids[j] == id ? -3e38F : x[j];
  if (own >= 0) x[own] = own_cosine;
}

// v with its lanes from n on 0.
template <class I>
TWINLENS_INLINE Vec<I> first_lanes(Vec<I> v, std::int64_t n) {
  float lanes[Vec<I>::kWidth];
  v.store(lanes);
  return Vec<I>::load_partial(lanes, n);
}

template <class I>
TWINLENS_INLINE Vec<I> scaled(const float* x, std::int64_t n, float scale) {
  using V = Vec<I>;
  return V::max(load_lanes<I>(x, n) * V(scale), V(kLeftOut));
}

template <class I>
TWINLENS_INLINE float exp_of_difference(float a, float b) {
  return Math<I>::exp(Vec<I>(a - b)).raw[0];
}

// Row r of a tile into the statistics of its row.
template <class I>
TWINLENS_INLINE void take_row(const InfoNceStatistics& a, std::int64_t r, float scale) {
  using V = Vec<I>;
  const InfoNceTile& t = a.tile;
  float* x = t.logits.template row<float>(r);
  leave_out(t, r, x);
  if (const std::int64_t own = own_place(t, r); own >= 0) x[own] = -3e38F;
  V largest(kLeftOut);
  for_lanes<I>(t.logits.cols, [&](std::int64_t j, std::int64_t n) {
    const V v = scaled<I>(x + j, n, scale);
    store_lanes<I>(v, x + j, n);
    largest = V::max(largest, n == V::kWidth ? v : load_lanes<I>(x + j, n, kLeftOut));
  });
  const std::int64_t i = t.first_row + r;
  const float high = a.row_own.high[i], before = a.rows.max[i], here = largest.max() - high;
  const float now = here > before ? here : before;
  V sum(0.0F);
  for_lanes<I>(t.logits.cols, [&](std::int64_t j, std::int64_t n) {
    sum += Math<I>::exp_nonpositive((load_lanes<I>(x + j, n, kLeftOut) - V(high)) - V(now));
  });
  a.rows.sum[i] = a.rows.sum[i] * exp_of_difference<I>(before, now) + sum.sum();
  a.rows.max[i] = now;
}

// Columns [begin, end) of a tile, at most kStrip, into the statistics of their columns.
template <class I>
TWINLENS_INLINE void take_columns(const InfoNceStatistics& a, std::int64_t begin, std::int64_t end) {
  using V = Vec<I>;
  const Rows& x = a.tile.logits;
  const std::int64_t count = end - begin, first = a.tile.first_column + begin;
  const float* high = a.column_own.high + first;
  alignas(64) float max[kStrip], sum[kStrip], part[kStrip];
  for (std::int64_t j = 0; j < kStrip; ++j) max[j] = kLeftOut;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.template row<float>(r) + begin;
    for_lanes<I>(count,
                 [&](std::int64_t j, std::int64_t n) { V::max(V::load(max + j), load_lanes<I>(row + j, n, kLeftOut)).store(max + j); });
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const float before = a.columns.max[first + j], here = max[j] - high[j];
    max[j] = here > before ? here : before;
    sum[j] = a.columns.sum[first + j] * exp_of_difference<I>(before, max[j]);
    a.columns.max[first + j] = max[j];
  }
  for (std::int64_t block = 0; block < x.rows; block += kRowBlock) {
    const std::int64_t last = block + kRowBlock < x.rows ? block + kRowBlock : x.rows;
    for (std::int64_t j = 0; j < kStrip; ++j) part[j] = 0.0F;
    for (std::int64_t r = block; r < last; ++r) {
      const float* row = x.template row<float>(r) + begin;
      for_lanes<I>(count, [&](std::int64_t j, std::int64_t n) {
        const V d = load_lanes<I>(row + j, n, kLeftOut) - load_lanes<I>(high + j, n);
        (V::load(part + j) + Math<I>::exp_nonpositive(d - V::load(max + j))).store(part + j);
      });
    }
    for (std::int64_t j = 0; j < count; ++j) sum[j] += part[j];
  }
  for (std::int64_t j = 0; j < count; ++j) a.columns.sum[first + j] = sum[j];
}

// The targets of a teacher in row r: f(j, n, t, t') for lanes of columns.
template <class I, class F>
TWINLENS_INLINE void for_targets(const InfoNceTile& tile, const InfoNceTeacher& teacher, float scale, std::int64_t r, F&& f) {
  using V = Vec<I>;
  const std::int64_t i = tile.first_row + r, first = tile.first_column;
  const V shift(teacher.rows.shift[i]), factor(teacher.rows.factor[i]);
  const float* x = teacher.logits.template row<float>(r);
  for_lanes<I>(tile.logits.cols, [&](std::int64_t j, std::int64_t n) {
    const std::int64_t c = first + j;
    const V v = load_lanes<I>(x + j, n) * V(scale);
    f(j, n, Math<I>::exp_nonpositive(v - shift) * factor,
      Math<I>::exp_nonpositive(v - load_lanes<I>(teacher.columns.shift + c, n)) * load_lanes<I>(teacher.columns.factor + c, n));
  });
}

// With a teacher: sums of targets times distances from the own pair. Columns first, each in order of rows.
template <class I>
void take_cross(const InfoNceStatistics& a) {
  using V = Vec<I>;
  const InfoNceTile& t = a.tile;
  const float scale = exp_of(a.teacher.logit_scale);
  // Targets take the place of the teacher's cosines for the column sums: t' (a_j - S_ij).
  for_rows(t.logits.rows, kRowsOfAChunk, [&](std::int64_t r) {
    const std::int64_t i = t.first_row + r, own = own_place(t, r);
    float* x = t.logits.template row<float>(r);
    float* to = a.teacher.logits.template row<float>(r);
    const V high(a.row_own.high[i]), low(a.row_own.low[i]);
    if (own >= 0) x[own] = a.row_own.high[i];  // distance 0 (but for its last bits) in both directions
    V sum(0.0F);
    for_targets<I>(t, a.teacher, scale, r, [&](std::int64_t j, std::int64_t n, V target, V column_target) {
      const V s = load_lanes<I>(x + j, n);
      const V share = target * (low - (s - high));
      const V column =
          load_lanes<I>(a.column_own.low + t.first_column + j, n) - (s - load_lanes<I>(a.column_own.high + t.first_column + j, n));
      store_lanes<I>(share, x + j, n);
      store_lanes<I>(column_target * column, to + j, n);
    });
    if (own >= 0) x[own] = to[own] = 0.0F;
    for_lanes<I>(t.logits.cols, [&](std::int64_t j, std::int64_t n) { sum += load_lanes<I>(x + j, n); });
    a.row_cross[i] += sum.sum();
  });
  parallel_for(t.logits.cols, kStrip, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float sums[kStrip] = {};
    for (std::int64_t r = 0; r < t.logits.rows; ++r) {
      const float* row = a.teacher.logits.template row<float>(r) + begin;
      for_lanes<I>(end - begin, [&](std::int64_t j, std::int64_t n) { (V::load(sums + j) + load_lanes<I>(row + j, n)).store(sums + j); });
    }
    for (std::int64_t j = begin; j < end; ++j) a.column_cross[t.first_column + j] += sums[j - begin];
  });
}

// log(1 + e^z) of the statistics of a row or column, and what its probabilities are computed from.
TWINLENS_INLINE void finish_softmax(const InfoNceSums& sums, const InfoNceOwn& own, const InfoNceSoftmax& out, std::int64_t i) {
  const auto high = static_cast<double>(own.high[i]), low = static_cast<double>(own.low[i]);
  const double z = static_cast<double>(sums.max[i]) - low + __builtin_log(static_cast<double>(sums.sum[i]));
  const double loss = (z > 0.0 ? z : 0.0) + __builtin_log1p(__builtin_exp(-__builtin_fabs(z))), end = high + low + loss;
  out.loss[i] = static_cast<float>(loss);
  out.shift[i] = static_cast<float>(end);
  out.factor[i] = static_cast<float>(__builtin_exp(static_cast<double>(out.shift[i]) - end));
}

template <class I, bool WithTeacher>
TWINLENS_INLINE void gradient_row(const InfoNceGradient& a, std::int64_t r, float scale, float teacher_scale, float factor) {
  using V = Vec<I>;
  const InfoNceTile& t = a.tile;
  const std::int64_t i = t.first_row + r, first = t.first_column, own = own_place(t, r);
  float* x = t.logits.template row<float>(r);
  leave_out(t, r, x);
  if (own >= 0) x[own] = -3e38F;
  const V high(a.row_own.high[i]), low(a.row_own.low[i]), shift(a.rows.shift[i]), row_factor(a.rows.factor[i]);
  V p_sum(0.0F), q_sum(0.0F), slope(0.0F);
  const auto take = [&](std::int64_t j, std::int64_t n, V target, V column_target) {
    const V s = scaled<I>(x + j, n, scale);
    const V column_low = load_lanes<I>(a.column_own.low + first + j, n);
    const V d = s - high, e = s - load_lanes<I>(a.column_own.high + first + j, n);
    V p = Math<I>::exp_nonpositive(s - shift) * row_factor;
    V q = Math<I>::exp_nonpositive(s - load_lanes<I>(a.columns.shift + first + j, n)) * load_lanes<I>(a.columns.factor + first + j, n);
    if constexpr (WithTeacher) {
      p = p - target;
      q = q - column_target;
    }
    V shares = p * (d - low) + q * (e - column_low);
    store_lanes<I>((p + q) * V(factor), x + j, n);
    if (n < V::kWidth) {  // lanes beyond the row
      p = first_lanes<I>(p, n);
      q = first_lanes<I>(q, n);
      shares = first_lanes<I>(shares, n);
    }
    p_sum += p;
    q_sum += q;
    slope += shares;
  };
  double own_target = 0.0;
  if constexpr (WithTeacher) {
    // The own pair's targets are left out of these sums: its logit is kLeftOut, so they would count as -target there.
    float* y = a.teacher.logits.template row<float>(r);
    if (own >= 0) {
      y[own] = -3e38F;
      own_target = missing(a.teacher.rows.loss[i]) + missing(a.teacher.columns.loss[first + own]);
    }
    for_targets<I>(t, a.teacher, teacher_scale, r, take);
  } else {
    for_lanes<I>(t.logits.cols, [&](std::int64_t j, std::int64_t n) { take(j, n, V(0.0F), V(0.0F)); });
  }
  double* sums = a.row_sums + 4 * i;
  sums[0] += static_cast<double>(p_sum.sum());
  sums[1] += static_cast<double>(q_sum.sum());
  sums[2] += static_cast<double>(slope.sum());
  if (own >= 0) {
    x[own] = -factor * static_cast<float>(missing(a.rows.loss[i]) + missing(a.columns.loss[first + own]) - own_target);
  }
}

template <class I>
TWINLENS_INLINE double dot(const float* a, const float* b, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t k = 0; k < n; ++k) sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
  return sum;
}

template <class I>
TWINLENS_INLINE void sigmoid_row(const SigmoidLossTile& a, std::int64_t r, float scale, float bias) {
  using V = Vec<I>;
  using F = Functions<Math<I>>;
  const InfoNceTile& t = a.tile;
  float* x = t.logits.template row<float>(r);
  const std::int64_t own = own_place(t, r);
  leave_out(t, r, x);
  float own_x = 0.0F, own_logit = 0.0F;
  if (own >= 0) {
    own_logit = x[own] * scale;
    own_x = own_logit + bias;
    x[own] = -3e38F;
  }
  V loss(0.0F), dbias(0.0F), dscale(0.0F);
  const float factor = scale * a.weight;
  for_lanes<I>(t.logits.cols, [&](std::int64_t j, std::int64_t n) {
    const V s = n == V::kWidth ? scaled<I>(x + j, n, scale) : V::max(V::load_partial(x + j, n, -3e38F) * V(scale), V(kLeftOut));
    const V v = s + V(bias), g = Math<I>::sigmoid(v);
    loss += V::max(v, V(0.0F)) + Math<I>::log1p_exp_neg_abs(v);
    dbias += g;
    dscale += g * s;
    store_lanes<I>(g * V(factor), x + j, n);
  });
  double* sums = a.row_sums + 3 * (t.first_row + r);
  sums[0] += static_cast<double>(loss.sum());
  sums[1] += static_cast<double>(dbias.sum());
  sums[2] += static_cast<double>(dscale.sum());
  if (own < 0) return;
  const V v(own_x);
  const float g = -Math<I>::sigmoid(-v).raw[0];
  sums[0] -= static_cast<double>(F::LogSigmoid::value(v).raw[0]);
  sums[1] += static_cast<double>(g);
  sums[2] += static_cast<double>(g) * static_cast<double>(own_logit);
  x[own] = g * factor;
}

}  // namespace

template <class I>
void kernel(I, const InfoNceDiagonal& a) {
  const double scale = __builtin_exp(static_cast<double>(*a.logit_scale));
  for_rows(a.rows.rows, kRowsOfAChunk, [&](std::int64_t i) {
    const double own = scale * dot<I>(a.rows.template row<float>(i), a.columns.template row<float>(i + a.offset), a.rows.cols);
    a.high[i] = static_cast<float>(own);
    const double rest = own - static_cast<double>(a.high[i]);
    a.low[i] = rest == rest ? static_cast<float>(rest) : 0.0F;  // (of an infinity: the high part says it)
  });
}
template void kernel(TWINLENS_ISA, const InfoNceDiagonal&);

template <class I>
void kernel(I, const InfoNceStatistics& a) {
  const float scale = exp_of(a.tile.logit_scale);
  for_rows(a.tile.logits.rows, kRowsOfAChunk, [&](std::int64_t r) { take_row<I>(a, r, scale); });
  parallel_for(a.tile.logits.cols, kStrip, [&](std::int64_t begin, std::int64_t end) { take_columns<I>(a, begin, end); });
  if (a.teacher.logits.data != nullptr) take_cross<I>(a);
}
template void kernel(TWINLENS_ISA, const InfoNceStatistics&);

template <class I>
void kernel(I, const InfoNceLoss& a) {
  for_rows(a.row_count, 1024, [&](std::int64_t i) { finish_softmax(a.rows, a.row_own, a.row_softmax, i); });
  for_rows(a.column_count, 1024, [&](std::int64_t j) { finish_softmax(a.columns, a.column_own, a.column_softmax, j); });
  double total = 0.0;
  for (std::int64_t i = 0; i < a.row_count; ++i) {
    total += static_cast<double>(a.row_softmax.loss[i]) + static_cast<double>(a.column_softmax.loss[i + a.offset]);
    if (a.row_cross != nullptr) total += static_cast<double>(a.row_cross[i]) + static_cast<double>(a.column_cross[i + a.offset]);
  }
  *a.loss = a.row_count > 0 ? static_cast<float>(total / (2.0 * static_cast<double>(a.row_count))) : 0.0F;
}
template void kernel(TWINLENS_ISA, const InfoNceLoss&);

template <class I>
void kernel(I, const InfoNceGradient& a) {
  const float scale = exp_of(a.tile.logit_scale), factor = scale * a.weight * *a.dy;
  if (a.teacher.logits.data != nullptr) {
    const float teacher_scale = exp_of(a.teacher.logit_scale);
    for_rows(a.tile.logits.rows, kRowsOfAChunk, [&](std::int64_t r) { gradient_row<I, true>(a, r, scale, teacher_scale, factor); });
  } else {
    for_rows(a.tile.logits.rows, kRowsOfAChunk, [&](std::int64_t r) { gradient_row<I, false>(a, r, scale, 0.0F, factor); });
  }
}
template void kernel(TWINLENS_ISA, const InfoNceGradient&);

template <class I>
void kernel(I, const InfoNceFinish& a) {
  const std::int64_t n = a.rows.rows;
  const bool whole = n == a.column_count;
  const auto gone = [](const float* loss, const float* teacher, std::int64_t i) {
    return missing(loss[i]) - (teacher != nullptr ? missing(teacher[i]) : 0.0);
  };
  if (a.drows.data != nullptr) {
    for_rows(n, kRowsOfAChunk, [&](std::int64_t i) {
      a.row_sums[4 * i + 3] = dot<I>(a.rows.template row<float>(i), a.drows.template row<float>(i), a.rows.cols);
    });
  }
  double balance = 0.0, mass = 0.0, slope = 0.0, of_features = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double* sums = a.row_sums + 4 * i;
    balance += sums[0] - gone(a.row_loss, a.teacher_row_loss, i);
    mass += missing(a.row_loss[i]);
    if (a.teacher_row_loss != nullptr) mass += missing(a.teacher_row_loss[i]);
    slope += sums[2];
    if (whole) balance += sums[1];
    of_features += sums[3];
  }
  for (std::int64_t j = 0; whole && j < n; ++j) {
    balance -= gone(a.column_loss, a.teacher_column_loss, j);
    mass += missing(a.column_loss[j]);
    if (a.teacher_column_loss != nullptr) mass += missing(a.teacher_column_loss[j]);
  }
  const double factor = static_cast<double>(a.weight) * static_cast<double>(*a.dy);
  const double scale = __builtin_exp(static_cast<double>(*a.logit_scale)), tiny = 1e-6 * static_cast<double>(n);
  *a.dlogit_scale = static_cast<float>(factor * slope);
  a.identities[0] = n > 0 ? __builtin_fabs(balance) / (mass + tiny) : 0.0;
  a.identities[1] = whole && n > 0 && factor != 0.0 && a.drows.data != nullptr
                        ? __builtin_fabs(of_features / factor - slope) / (scale * (mass + tiny))
                        : 0.0;
  if (a.poison && (a.identities[0] > InfoNceFinish::kBroken || a.identities[1] > InfoNceFinish::kBroken))
    *a.dlogit_scale = __builtin_nanf("");
}
template void kernel(TWINLENS_ISA, const InfoNceFinish&);

template <class I>
void kernel(I, const SigmoidLossTile& a) {
  const float scale = exp_of(a.tile.logit_scale), bias = *a.logit_bias;
  for_rows(a.tile.logits.rows, kRowsOfAChunk, [&](std::int64_t r) { sigmoid_row<I>(a, r, scale, bias); });
}
template void kernel(TWINLENS_ISA, const SigmoidLossTile&);

template <class I>
void kernel(I, const SigmoidLossFinish& a) {
  for (int k = 0; k < 3; ++k) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < a.row_count; ++i) sum += a.row_sums[3 * i + k];
    *a.out[k] = static_cast<float>(sum * static_cast<double>(a.weight));
  }
}
template void kernel(TWINLENS_ISA, const SigmoidLossFinish&);

}  // namespace twinlens
