#pragma once
// Learning-rate schedules of open_clip (src/open_clip_train/scheduler.py). Steps count optimizer updates from 0; the rate is asked for
// before each update. Warm-up: base * (step + 1) / warmup for step < warmup.

#include <cstdint>
#include <string>

namespace twinlens {

struct Schedule {
  enum class Kind : std::uint8_t { cosine, constant, constant_cooldown };
  Kind kind = Kind::cosine;
  double base = 5e-4;
  std::int64_t warmup = 0;
  std::int64_t total = 1;     // steps
  std::int64_t cooldown = 0;  // constant_cooldown: the last so many steps fall to `cooldown_end`
  double cooldown_end = 0.0;
  double cooldown_power = 1.0;

  // Throws ConfigError for a step below 0.
  double operator()(std::int64_t step) const;
};

// "cosine", "const", "const-cooldown". Throws ConfigError.
Schedule::Kind parse_schedule(const std::string& name);

}  // namespace twinlens
