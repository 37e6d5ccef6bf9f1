#include "clip/src/card_pictures.h"

#include <algorithm>
#include <cstring>

#include "twinlens/kernels/recolor.h"
#include "twinlens/kernels/tone.h"

namespace twinlens {
namespace {

constexpr std::int64_t kAlignment = 256;
std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Places one behind the other; what goes there is copied when the whole is known.
class Places {
 public:
  std::int64_t take(const void* from, std::int64_t bytes) {
    const std::int64_t at = end_;
    pieces_.push_back({from, at, bytes});
    end_ += aligned(bytes);
    return at;
  }
  std::int64_t take_rows(const std::uint8_t* from, std::int64_t stride, std::int64_t rows, std::int64_t bytes) {
    const std::int64_t at = end_;
    for (std::int64_t r = 0; r < rows; ++r) pieces_.push_back({from + r * stride, at + r * bytes, bytes});
    end_ += aligned(rows * bytes);
    return at;
  }
  Tensor copied() const {
    const Tensor bytes = empty_pinned({end_}, DType::u8);
    for (const Piece& p : pieces_) std::memcpy(bytes.data<std::uint8_t>() + p.at, p.from, static_cast<std::size_t>(p.bytes));
    return bytes;
  }

 private:
  struct Piece {
    const void* from;
    std::int64_t at, bytes;
  };
  std::vector<Piece> pieces_;
  std::int64_t end_ = 0;
};

PackedPictures::Axis place_axis(Places& places, const AxisTable& table) {
  const auto take = [&](const std::vector<std::int32_t>& x) { return places.take(x.data(), static_cast<std::int64_t>(x.size() * 4)); };
  PackedPictures::Axis axis;
  axis.begin = take(table.begin);
  axis.taps = take(table.taps);
  axis.weights = take(table.weights);
  axis.count = static_cast<std::int64_t>(table.begin.size());
  axis.stride = table.stride;
  return axis;
}

// The buffers of one picture: what does not work in place goes back and forth between the result and a spare, and ends in the result.
class Buffers {
 public:
  Buffers(std::uint8_t* result, std::uint8_t* spare, int moves)
      : target_(moves % 2 == 1 ? result : spare), other_(moves % 2 == 1 ? spare : result) {}
  std::uint8_t* now() const { return now_; }
  std::uint8_t* move() {
    now_ = target_;
    std::swap(target_, other_);
    return now_;
  }

 private:
  std::uint8_t *now_ = nullptr, *target_, *other_;
};

void transform(Stream& stream, const PackedPictures::Picture& p, std::int64_t size, const std::uint8_t* bytes, std::uint8_t* scratch,
               std::uint8_t* spare, std::uint8_t* result) {
  const auto axis = [&](const PackedPictures::Axis& a) {
    const auto at = [&](std::int64_t offset) { return reinterpret_cast<const std::int32_t*>(bytes + offset); };
    return ResizeAxis{at(a.begin), at(a.taps), at(a.weights), a.count, a.stride};
  };
  const AugmentPlan& plan = p.plan;
  Buffers buffers(result, spare, 1 + (plan.warp.has_value() ? 1 : 0) + (plan.sharpness.has_value() ? 1 : 0));
  run(stream, Resize{bytes + p.pixels, plan.rect.width, plan.rect.width * 3, axis(p.horizontal), axis(p.vertical), p.rows.first,
                     p.rows.count, plan.vertical_first, scratch, buffers.move()});
  if (plan.warp.has_value()) {
    const std::uint8_t* before = buffers.now();
    WarpAffine args{before, buffers.move(), size, size, {}, AugmentPlan::kFill};
    std::copy(plan.warp->begin(), plan.warp->end(), args.m);
    run(stream, args);
  }
  std::uint8_t* const now = buffers.now();
  if (plan.color.has_value()) recolor(stream, *plan.color, now, size * size, reinterpret_cast<float*>(scratch));  // (the resize is done)
  if (plan.curve.has_value()) run(stream, ToneCurve{now, now, 3 * size * size, bytes + p.curve});
  if (plan.sharpness.has_value()) run(stream, Sharpness{now, buffers.move(), size, size, *plan.sharpness});
}

}  // namespace

std::int64_t PackedPictures::bytes_on_card() const { return bytes.count() + aligned(scratch) + 3 * size * size; }

PackedPictures pack_pictures(std::vector<PlannedPicture> pictures, std::int64_t size) {
  PackedPictures packed;
  packed.size = size;
  packed.scratch = sizeof(float);  // for recolor()
  Places places;
  for (const PlannedPicture& picture : pictures) {
    const AugmentPlan& plan = picture.plan;
    const std::int64_t stride = picture.image->width * 3;
    PackedPictures::Picture p;
    p.pixels = places.take_rows(picture.image->rgb.data() + plan.rect.top * stride + plan.rect.left * 3, stride, plan.rect.height,
                                plan.rect.width * 3);
    p.horizontal = place_axis(places, plan.horizontal);
    p.vertical = place_axis(places, plan.vertical);
    if (plan.curve.has_value()) p.curve = places.take(plan.curve->data(), static_cast<std::int64_t>(plan.curve->size()));
    p.rows = rows_read(plan.vertical);
    packed.scratch = std::max(packed.scratch, resize_scratch(plan.rect.width, plan.horizontal, plan.vertical, plan.vertical_first));
    packed.pictures.push_back(std::move(p));
  }
  packed.bytes = places.copied();
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    packed.pictures[i].plan = std::move(pictures[i].plan);
    packed.pictures[i].plan.horizontal = packed.pictures[i].plan.vertical = {};
  }
  return packed;
}

void transform_pictures(Stream& stream, const PackedPictures& packed, void* on_card, const Tensor& pixels) {
  auto* const bytes = static_cast<std::uint8_t*>(on_card);
  std::uint8_t* const scratch = bytes + packed.bytes.count();
  std::uint8_t* const spare = scratch + aligned(packed.scratch);
  auto* result = static_cast<std::uint8_t*>(pixels.raw());
  for (const PackedPictures::Picture& p : packed.pictures) {
    transform(stream, p, packed.size, bytes, scratch, spare, result);
    result += 3 * packed.size * packed.size;
  }
}

}  // namespace twinlens
