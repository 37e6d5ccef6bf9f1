#pragma once
// run(stream, args): the only door into any kernel, so tracing and device choice live in one place.
//
// The argument struct is the op: `static constexpr const char* kName` and `static constexpr bool kCuda` (whether kernels/cuda has its
// mirror); a struct whose CPU body gains by instructions for bf16 also has `kBf16` (UsesBf16), and `+bf16` or `+bf16dot` in
// kernels/ops.cmake. Its CPU body is `template <class I> void kernel(I, const Args&)` in kernels/cpu, its CUDA body `void launch(Cuda,
// Stream&, const Args&)` in kernels/cuda. A missing body is a link error that names the struct. In a DryRun nothing is run.

#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/stream.h"
#include "twinlens/kernels/trace.h"

namespace twinlens {

struct Cuda {};  // tag of the CUDA bodies

#if defined(TWINLENS_WITH_CUDA)
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

// What becomes of an op on a card for which this build has no kernel: a DeviceError.
void run_without_kernel(Stream& stream, const char* op, const void* args);
// Only in a build with CUDA. Launchers run on the stream's device; what they could not launch is reported with the op's name.
void select_cuda_device(const Stream& stream);
void check_cuda_launch(const char* op, const Stream& stream);

template <class Args>
void run(Stream& stream, const Args& args) {
  if (DryRun::current() != nullptr) return;
  const Trace trace(stream, Args::kName);
  if (stream.device().is_cuda()) {
    if constexpr (kWithCuda && Args::kCuda) {
      select_cuda_device(stream);
      launch(Cuda{}, stream, args);
      check_cuda_launch(Args::kName, stream);
    } else {
      run_without_kernel(stream, Args::kName, &args);
    }
    return;
  }
  constexpr UsesBf16 use = [] {
    if constexpr (requires { Args::kBf16; }) {
      return Args::kBf16;
    } else {
      return UsesBf16::no;
    }
  }();
  with_isa<use>([&](auto isa) { kernel(isa, args); });
}

}  // namespace twinlens
