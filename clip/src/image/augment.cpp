#include "twinlens/clip/augment.h"

#include <algorithm>
#include <cmath>

#include "clip/src/image/augment_plan.h"

#include "twinlens/kernels/error.h"
#include "twinlens/kernels/philox.h"
#include "twinlens/kernels/recolor.h"
#include "twinlens/kernels/tone.h"

namespace twinlens {
namespace {

// Numbers of one site in order: [0, 1).
class Draws {
 public:
  Draws(const char* site, std::uint64_t seed, std::uint64_t epoch, std::int64_t sample)
      : key_(mix(mix(seed, epoch), site_hash(site))), sample_(static_cast<std::uint64_t>(sample)) {}
  double next() {
    const Philox4 bits = philox(key_, sample_, next_++);
    return static_cast<double>(uniform_from_bits(bits.v[0]));
  }
  double between(double low, double high) { return low + (high - low) * next(); }

 private:
  std::uint64_t key_, sample_, next_ = 0;
};

// An affine map of colour space.
struct ColorMap {
  std::array<double, 9> m{1, 0, 0, 0, 1, 0, 0, 0, 1};
  std::array<double, 3> b{0, 0, 0};

  void then(const std::array<double, 9>& n, const std::array<double, 3>& shift) {
    std::array<double, 9> product{};
    std::array<double, 3> moved = shift;
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 3; ++j) {
        for (std::size_t k = 0; k < 3; ++k) product[3 * i + j] += n[3 * i + k] * m[3 * k + j];
        moved[i] += n[3 * i + j] * b[j];
      }
    }
    m = product;
    b = moved;
  }
  void scale(double f) { then({f, 0, 0, 0, f, 0, 0, 0, f}, {0, 0, 0}); }
};

constexpr double kWhole = MeanLuma::kWhole;
constexpr std::array<double, 3> kLuma{MeanLuma::kRed / kWhole, MeanLuma::kGreen / kWhole, MeanLuma::kBlue / kWhole};

// f times the picture plus (1 - f) times its gray.
std::array<double, 9> toward_gray(double f) {
  std::array<double, 9> m{};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) m[3 * i + j] = (1.0 - f) * kLuma[j] + (i == j ? f : 0.0);
  }
  return m;
}

// A turn around the gray axis.
std::array<double, 9> hue_turn(double share) {
  const double angle = 2.0 * 3.14159265358979323846 * share, c = std::cos(angle), s = std::sin(angle), t = (1.0 - c) / 3.0,
               u = s / std::sqrt(3.0);
  return {c + t, t - u, t + u, t + u, c + t, t - u, t - u, t + u, c + t};
}

ColorDraws draw_color(const AugmentOptions& o, Draws draws) {
  ColorDraws c;
  c.jitter = draws.next() < o.jitter_probability;
  c.gray = draws.next() < o.gray_probability;
  if (!c.jitter) return c;
  c.brightness = draws.between(std::max(0.0, 1.0 - o.brightness), 1.0 + o.brightness);
  c.contrast = draws.between(std::max(0.0, 1.0 - o.contrast), 1.0 + o.contrast);
  c.saturation = draws.between(std::max(0.0, 1.0 - o.saturation), 1.0 + o.saturation);
  c.hue = draws.between(-o.hue, o.hue);
  return c;
}

std::optional<std::array<std::uint8_t, 256>> draw_curve(const AugmentOptions& o, Draws draws) {
  const double gamma = std::exp(draws.between(-o.gamma, o.gamma));
  const bool invert = draws.next() < o.invert_probability;
  if (gamma == 1.0 && !invert) return std::nullopt;
  std::array<std::uint8_t, 256> curve{};
  for (std::size_t i = 0; i < curve.size(); ++i) {
    const double v = std::pow(static_cast<double>(i) / 255.0, gamma);
    curve[i] = static_cast<std::uint8_t>(255.0 * (invert ? 1.0 - v : v) + 0.5);
  }
  return curve;
}

std::optional<float> draw_sharpness(const AugmentOptions& o, Draws draws) {
  if (draws.next() >= o.sharpness_probability) return std::nullopt;
  return static_cast<float>(draws.between(o.sharpness[0], o.sharpness[1]));
}

// Where a rectangle of the full picture is in one decoded at a smaller scale.
Box within(const Image& image, const Rect& r) {
  const auto at = [&](float origin, std::int64_t edge) { return origin + static_cast<float>(static_cast<double>(edge) * image.scale); };
  return {at(image.left, r.left), at(image.top, r.top), at(image.left, r.left + r.width), at(image.top, r.top + r.height)};
}

std::array<float, 6> draw_warp(std::int64_t size, const AugmentOptions& o, Draws draws) {
  const double angle = draws.between(-o.rotate_degrees, o.rotate_degrees) * 3.14159265358979323846 / 180.0;
  const double dx = draws.between(-o.translate, o.translate) * static_cast<double>(size);
  const double dy = draws.between(-o.translate, o.translate) * static_cast<double>(size);
  const double zoom = draws.between(o.zoom[0], o.zoom[1]);
  const double centre = static_cast<double>(size - 1) / 2.0;
  const double c = std::cos(angle) / zoom, s = std::sin(angle) / zoom;
  const double m[6] = {c, s, centre - c * (centre + dx) - s * (centre + dy), -s, c, centre + s * (centre + dx) - c * (centre + dy)};
  std::array<float, 6> out{};
  for (std::size_t i = 0; i < 6; ++i) out[i] = static_cast<float>(m[i]);
  return out;
}

void check_augment(const AugmentOptions& o) {
  const auto require = [](bool fits, const char* field, const char* rule) {
    if (!fits) throw ConfigError(std::string("augment: ") + field + " is out of range; AugmentOptions; give " + rule);
  };
  const auto share = [&](double x, const char* field) { require(x >= 0.0 && x <= 1.0, field, "a number from 0 to 1"); };
  const auto width = [&](double x, const char* field) { require(std::isfinite(x) && x >= 0.0, field, "a number of at least 0"); };
  const auto range = [&](const std::array<double, 2>& x, const char* field) {
    require(x[0] > 0.0 && x[0] <= x[1] && std::isfinite(x[1]), field, "two numbers above 0, the lower one first");
  };
  range(o.scale, "scale");
  require(o.scale[1] <= 1.0, "scale", "shares of at most 1");
  range(o.ratio, "ratio");
  range(o.zoom, "zoom");
  require(o.sharpness[0] >= 0.0 && o.sharpness[0] <= o.sharpness[1] && std::isfinite(o.sharpness[1]), "sharpness",
          "two numbers of at least 0, the lower one first");
  share(o.flip_probability, "flip_probability");
  share(o.jitter_probability, "jitter_probability");
  share(o.gray_probability, "gray_probability");
  share(o.invert_probability, "invert_probability");
  share(o.sharpness_probability, "sharpness_probability");
  share(o.translate, "translate");
  width(o.brightness, "brightness");
  width(o.contrast, "contrast");
  width(o.saturation, "saturation");
  width(o.hue, "hue");
  width(o.gamma, "gamma");
  width(o.rotate_degrees, "rotate_degrees");
}

}  // namespace

Rect random_crop(std::int64_t width, std::int64_t height, const AugmentOptions& o, std::uint64_t seed, std::uint64_t epoch,
                 std::int64_t sample) {
  check_augment(o);
  Draws draws("augment.crop", seed, epoch, sample);
  const double area = static_cast<double>(width) * static_cast<double>(height);
  for (int tries = 0; tries < 10; ++tries) {
    const double target = area * draws.between(o.scale[0], o.scale[1]);
    const double ratio = std::exp(draws.between(std::log(o.ratio[0]), std::log(o.ratio[1])));
    const auto w = static_cast<std::int64_t>(std::nearbyint(std::sqrt(target * ratio)));
    const auto h = static_cast<std::int64_t>(std::nearbyint(std::sqrt(target / ratio)));
    if (w <= 0 || h <= 0 || w > width || h > height) continue;
    const auto top = static_cast<std::int64_t>(draws.next() * static_cast<double>(height - h + 1));
    const auto left = static_cast<std::int64_t>(draws.next() * static_cast<double>(width - w + 1));
    return {left, top, w, h};
  }
  std::int64_t w = width, h = height;
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  if (ratio < o.ratio[0]) h = std::min(height, static_cast<std::int64_t>(std::nearbyint(static_cast<double>(width) / o.ratio[0])));
  if (ratio > o.ratio[1]) w = std::min(width, static_cast<std::int64_t>(std::nearbyint(static_cast<double>(height) * o.ratio[1])));
  return {(width - w) / 2, (height - h) / 2, w, h};
}

double least_scale(std::int64_t width, std::int64_t height, std::int64_t size, const AugmentOptions& o, std::uint64_t seed,
                   std::uint64_t epoch, std::int64_t sample) {
  const Rect crop = random_crop(width, height, o, seed, epoch, sample);
  return static_cast<double>(size) / static_cast<double>(std::min(crop.width, crop.height));
}

void recolor(Stream& stream, const ColorDraws& c, std::uint8_t* pixels, std::int64_t count, float* luma) {
  ColorMap map;  // its shift is in units of the mean luma
  if (c.jitter) {
    map.scale(c.brightness);
    const double middle = (1.0 - c.contrast) * c.brightness;
    map.then({c.contrast, 0, 0, 0, c.contrast, 0, 0, 0, c.contrast}, {middle, middle, middle});
    map.then(toward_gray(c.saturation), {0, 0, 0});
    map.then(hue_turn(c.hue), {0, 0, 0});
  }
  if (c.gray) map.then(toward_gray(0.0), {0, 0, 0});
  Recolor args{};
  for (std::size_t i = 0; i < 9; ++i) args.m[i] = static_cast<float>(map.m[i]);
  for (std::size_t i = 0; i < 3; ++i) args.b[i] = static_cast<float>(map.b[i]);
  args.x = args.y = pixels;
  args.count = count;
  if (c.jitter && c.contrast != 1.0) {
    run(stream, MeanLuma{pixels, count, luma});
    args.luma = luma;
  }
  run(stream, args);
}

AugmentPlan plan_augment(const Image& image, std::int64_t size, const AugmentOptions& o, std::uint64_t seed, std::uint64_t epoch,
                         std::int64_t sample) {
  check_pixels(image);
  if (size < 1) throw ShapeError("cannot make a picture of size " + std::to_string(size) + "; augment; use a size of at least 1");
  const bool mirror = Draws("augment.flip", seed, epoch, sample).next() < o.flip_probability;
  AugmentPlan plan;
  Box box;  // of the rectangle
  if (image.scale == 1.0) {
    plan.rect = random_crop(image.width, image.height, o, seed, epoch, sample);
    box = {0, 0, static_cast<float>(plan.rect.width), static_cast<float>(plan.rect.height)};
  } else {
    plan.rect = {0, 0, image.width, image.height};
    box = within(image, random_crop(image.full_width, image.full_height, o, seed, epoch, sample));
  }
  plan.horizontal = resize_axis(plan.rect.width, box.left, box.right, size, o.filter, 0, size, mirror);
  plan.vertical = resize_axis(plan.rect.height, box.top, box.bottom, size, o.filter, 0, size);
  plan.vertical_first = vertical_first(PassOrder::pillow_13, plan.rect.width, plan.rect.height, size, size);
  if (o.rotate_degrees > 0.0 || o.translate > 0.0 || o.zoom[0] != 1.0 || o.zoom[1] != 1.0)
    plan.warp = draw_warp(size, o, Draws("augment.affine", seed, epoch, sample));
  const ColorDraws color = draw_color(o, Draws("augment.color", seed, epoch, sample));
  if (color.jitter || color.gray) plan.color = color;
  plan.curve = draw_curve(o, Draws("augment.tone", seed, epoch, sample));
  plan.sharpness = draw_sharpness(o, Draws("augment.sharpness", seed, epoch, sample));
  return plan;
}

Image augment(const Image& image, std::int64_t size, const AugmentOptions& o, std::uint64_t seed, std::uint64_t epoch,
              std::int64_t sample) {
  const AugmentPlan plan = plan_augment(image, size, o, seed, epoch, sample);
  const std::uint8_t* const corner = image.rgb.data() + (plan.rect.top * image.width + plan.rect.left) * 3;
  Image out = run_resize({corner, plan.rect.width, plan.rect.height, image.width * 3}, plan.horizontal, plan.vertical, plan.vertical_first);
  Stream& stream = current_stream(kCpu);
  std::uint8_t* const pixels = out.rgb.data();
  std::vector<std::uint8_t> before;  // of what does not change in place
  if (plan.warp.has_value()) {
    before = out.rgb;
    WarpAffine args{before.data(), pixels, size, size, {}, AugmentPlan::kFill};
    std::copy(plan.warp->begin(), plan.warp->end(), args.m);
    run(stream, args);
  }
  if (plan.color.has_value()) {
    float luma = 0.0F;
    recolor(stream, *plan.color, pixels, size * size, &luma);
  }
  if (plan.curve.has_value()) run(stream, ToneCurve{pixels, pixels, 3 * size * size, plan.curve->data()});
  if (plan.sharpness.has_value()) {
    before = out.rgb;
    run(stream, Sharpness{before.data(), pixels, size, size, *plan.sharpness});
  }
  return out;
}

}  // namespace twinlens
