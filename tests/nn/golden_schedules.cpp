// Learning-rate schedules against open_clip's, every step.

#include <catch2/catch.hpp>

#include "tests/support/golden.h"

#include "twinlens/kernels/error.h"
#include "twinlens/nn/schedule.h"

namespace twinlens::test {
namespace {

Schedule schedule_of(const std::string& name, const nlohmann::json& settings) {
  Schedule s;
  s.kind = parse_schedule(name.rfind("cosine", 0) == 0 ? "cosine" : name == "const" ? "const" : "const-cooldown");
  s.base = settings["base_lr"].get<double>();
  s.warmup = settings["warmup_length"].get<std::int64_t>();
  s.total = settings["steps"].get<std::int64_t>();
  s.cooldown = settings.value("cooldown_steps", std::int64_t{0});
  s.cooldown_power = settings.value("cooldown_power", 1.0);
  s.cooldown_end = settings.value("cooldown_end_lr", 0.0);
  return s;
}

TEST_CASE("schedules are open_clip's") {
  const nlohmann::json all = golden_json("schedules");
  REQUIRE(all.size() == 5);
  for (const auto& [name, entry] : all.items()) {
    INFO("schedule " << name);
    const Schedule schedule = schedule_of(name, entry["settings"]);
    const std::vector<double> want = entry["lr"].get<std::vector<double>>();
    REQUIRE(static_cast<std::int64_t>(want.size()) == schedule.total);
    for (std::int64_t step = 0; step < schedule.total; ++step) {
      INFO("step " << step);
      CHECK(schedule(step) == Approx(want[static_cast<std::size_t>(step)]).epsilon(1e-13).margin(1e-18));
    }
  }
}

TEST_CASE("a cooldown stays at its end, and may have no steps") {
  Schedule s;
  s.kind = Schedule::Kind::constant_cooldown;
  s.base = 1.0;
  s.total = 10;
  s.cooldown = 0;
  s.cooldown_power = 0.5;
  s.cooldown_end = 0.25;
  CHECK(s(9) == 1.0);
  CHECK(s(10) == 0.25);
  s.cooldown = 4;
  CHECK(s(12) == 0.25);
}

TEST_CASE("a step below 0 has no learning rate") {
  for (const auto kind : {Schedule::Kind::cosine, Schedule::Kind::constant, Schedule::Kind::constant_cooldown}) {
    const Schedule s{kind, 1.0, 2, 8};
    CHECK(s(0) == 0.5);
    CHECK_THROWS_WITH(s(-1), "learning rate of step -1; Schedule; steps count from 0");
  }
}

TEST_CASE("an unknown schedule is refused with the known ones") {
  CHECK_THROWS_AS(parse_schedule("linear"), ConfigError);
  CHECK_THROWS_WITH(parse_schedule("linear"), Catch::Contains("'linear'") && Catch::Contains("const-cooldown"));
}

}  // namespace
}  // namespace twinlens::test
