#pragma once
// Typed errors. The text is one line, in one of two forms:
//   what; where; what to do
//       'models/mine' is not there; --model; give a built-in name, or the path of an open_clip config .json or of a model folder
//   op: rule; name=shape dtype device, ...; in scope; file:line      from check() (core/check.h): an op refuses its arguments
//       matmul: inner sizes must agree: ...; a=[2,3] f32 cpu, b=[4,5] f32 cpu; matmul.cpp:121
//
// Who throws what:
//   ShapeError     check(), tensors, the communicator, captions and images: shapes, sizes and indices
//   DTypeError     check() and tensors
//   DeviceError    check(): tensors on different devices. Memory and CUDA: out of memory, no such device, a CUDA call that failed
//   AutogradError  the tape (core/autograd.h) and FlatParameters
//   FileError      whatever reads or writes files
//   ConfigError    model configurations, weights that do not fit, layers, environment variables
//   UsageError     options of the training program, its data and the command line; a ConfigError
//   NumericError   training, features, and the backward pass of info_nce, which checks itself
//   Error itself   what fits none of these: an absent tensor, another rank that failed, a library that gave up
//
// Kernel bodies never throw; the layers above check before they call them.

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
// NaN or infinity where a finite number is required; in info_nce also gradients that contradict each other.
class NumericError : public Error {
 public:
  using Error::Error;
};

}  // namespace twinlens
