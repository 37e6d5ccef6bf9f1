#include "twinlens/nn/schedule.h"

#include <cmath>

#include "twinlens/kernels/error.h"

namespace twinlens {

double Schedule::operator()(std::int64_t step) const {
  if (step < 0) throw ConfigError("learning rate of step " + std::to_string(step) + "; Schedule; steps count from 0");
  if (step < warmup) return base * static_cast<double>(step + 1) / static_cast<double>(warmup);
  switch (kind) {
    case Kind::cosine: {
      const double e = static_cast<double>(step - warmup);
      const double es = static_cast<double>(total - warmup);
      return es <= 0.0 ? base : 0.5 * (1.0 + std::cos(3.14159265358979323846 * e / es)) * base;
    }
    case Kind::constant: return base;
    case Kind::constant_cooldown: {
      const std::int64_t start = total - cooldown;
      if (step < start) return base;
      const double e = static_cast<double>(step - start);
      const double es = static_cast<double>(total - start);
      if (e >= es) return cooldown_end;  // behind the last step, or without steps to cool down in
      return std::pow(1.0 - e / es, cooldown_power) * (base - cooldown_end) + cooldown_end;
    }
  }
  return base;
}

Schedule::Kind parse_schedule(const std::string& name) {
  if (name == "cosine") return Schedule::Kind::cosine;
  if (name == "const") return Schedule::Kind::constant;
  if (name == "const-cooldown") return Schedule::Kind::constant_cooldown;
  throw ConfigError("unknown schedule '" + name + "'; --lr-scheduler; use cosine, const or const-cooldown");
}

}  // namespace twinlens
