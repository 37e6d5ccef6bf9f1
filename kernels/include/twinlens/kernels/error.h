#pragma once
// Typed errors. The text of every error reads `what; where; what to do`, one line, and names the thing, its place and the remedy.
// Kernels never throw; the layers above check before they call them.

#include <stdexcept>
#include <string>

namespace twinlens {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ShapeError : public Error {
 public:
  using Error::Error;
};
class DTypeError : public Error {
 public:
  using Error::Error;
};
class DeviceError : public Error {
 public:
  using Error::Error;
};
// The tape was misused: backward twice, a saved tensor modified, an in-place write on a leaf.
class AutogradError : public Error {
 public:
  using Error::Error;
};
// A file is missing, unreadable, truncated or of another format.
class FileError : public Error {
 public:
  using Error::Error;
};
// A configuration, flag or name that cannot be used.
class ConfigError : public Error {
 public:
  using Error::Error;
};
// Options that cannot be used whatever the files hold: out of range, unknown, or against each other. The program ends with status 2.
class UsageError : public ConfigError {
 public:
  using ConfigError::ConfigError;
};
// NaN or infinity where a finite number is required.
class NumericError : public Error {
 public:
  using Error::Error;
};

}  // namespace twinlens
