#pragma once
// Where memory lives and kernels run.

#include <cstdint>

namespace twinlens {

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  [[gnu::always_inline]] constexpr bool is_cpu() const { return type == DeviceType::cpu; }
  [[gnu::always_inline]] constexpr bool is_cuda() const { return type == DeviceType::cuda; }
  friend constexpr bool operator==(const Device&, const Device&) = default;
};

inline constexpr Device kCpu{};

}  // namespace twinlens
