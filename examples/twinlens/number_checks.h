#pragma once
// Checks of numbers on a command line. None of them takes nan or an infinity. Header only: bench/step has them, too.

#include <CLI/CLI.hpp>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

namespace twinlens::program {

// Of a number that is finite, `allowed` says whether it will do; `rule` says it to people.
inline CLI::Validator number_check(const std::string& rule, const std::string& description, const std::function<bool(double)>& allowed) {
  const auto check = [rule, allowed](std::string& text) -> std::string {
    char* end = nullptr;
    const double x = std::strtod(text.c_str(), &end);
    const bool is_number = end != text.c_str() && *end == '\0';
    return is_number && std::isfinite(x) && allowed(x) ? std::string() : "must be " + rule + ", not " + text;
  };
  return {check, description};
}

inline std::string short_number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", x);
  return text;
}

inline CLI::Validator at_least(double low) {
  const std::string rule = "at least " + short_number(low);
  return number_check(rule, rule, [low](double x) { return x >= low; });
}

inline CLI::Validator above(double low) {
  const std::string rule = "above " + short_number(low);
  return number_check(rule, rule, [low](double x) { return x > low; });
}

inline CLI::Validator within(double low, double high) {
  const std::string ends = short_number(low) + " to " + short_number(high);
  return number_check("from " + ends, ends, [low, high](double x) { return x >= low && x <= high; });
}

// Without the upper end.
inline CLI::Validator within_below(double low, double high) {
  const std::string rule = "at least " + short_number(low) + " and below " + short_number(high);
  return number_check(rule, short_number(low) + " to below " + short_number(high), [low, high](double x) { return x >= low && x < high; });
}

// Without the lower end.
inline CLI::Validator within_above(double low, double high) {
  const std::string rule = "above " + short_number(low) + " and at most " + short_number(high);
  return number_check(rule, "above " + short_number(low) + " to " + short_number(high),
                      [low, high](double x) { return x > low && x <= high; });
}

template <class T>
std::string whole_number_rule() {
  return "a whole number from " + std::to_string(std::numeric_limits<T>::min()) + " to " + std::to_string(std::numeric_limits<T>::max());
}

template <class T>
bool is_whole_number(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [behind, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && behind == end;
}

// Digits, of a number that fits into `T`. CLI11 takes the nearest one that fits for one that does not, the largest for -1 where there is no
// sign, and 8 for 010.
template <class T>
CLI::Validator whole_number() {
  const auto check = [](std::string& text) -> std::string {
    const bool is_octal = text.size() > 1 && text.starts_with('0');
    if (is_whole_number<T>(text) && !is_octal) return {};
    return "must be " + whole_number_rule<T>() + (is_octal ? " without a 0 before it" : "") + ", not " + text;
  };
  return {check, ""};
}

// Bytes of a number that may have a fraction and a unit, "8G", "0.5 GiB"; 1024 of one are the next.
inline CLI::Validator bytes_of_size() {
  const auto convert = [](std::string& text) -> std::string {
    if (text.find_first_not_of("0123456789") == std::string::npos) return {};  // bytes, to the last digit
    constexpr std::string_view units = "bkmgtpe";
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    std::string unit;
    for (const char* c = end; *c != '\0'; ++c) {
      if (*c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
    }
    if (unit.size() == 3 && unit.ends_with("ib")) unit.resize(1);
    if (unit.size() == 2 && unit.ends_with("b")) unit.resize(1);
    const std::size_t power = unit.empty() ? 0 : unit.size() == 1 ? units.find(unit) : std::string_view::npos;
    const double bytes = power == std::string_view::npos ? 0.0 : std::ldexp(number, 10 * static_cast<int>(power));
    if (end == text.c_str() || power == std::string_view::npos || !(std::abs(bytes) < 9e18))
      return "must be bytes, also with a unit from K to E, not " + text;
    text = std::to_string(std::llround(bytes));
    return {};
  };
  return {convert, "SIZE [B, K(=1024 B), M, G, T]"};
}

// Every flag with a number, whatever else is asked of it.
inline void refuse_unreadable_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (type.rfind("FLOAT", 0) == 0) option->check(number_check("a finite number", "", [](double) { return true; }));
    if (type.rfind("INT", 0) == 0) option->check(whole_number<std::int64_t>());
    if (type.rfind("UINT", 0) == 0) option->check(whole_number<std::uint64_t>());
  }
}

}  // namespace twinlens::program
