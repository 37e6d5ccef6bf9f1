#pragma once
// What this machine can do, measured now and in this process: goals are shares of it, so that they hold on any machine.

#include "twinlens/core/ops.h"

namespace twinlens::bench {

// Multiply-adds between registers, in GFLOP/s, on thread_count() threads with the active instruction set: f32, or bf16 products with f32
// sums where the set has them (f32 where not). The best of several short rounds by the time on the processor: other programs do not count.
double cpu_peak_gflops(bool bf16);

// Copying between two buffers that are `bytes` together (64 KiB to 320 MiB): bytes read plus bytes written, in GB/s, on thread_count()
// threads. Caches of hundreds of megabytes make this a function of the size, so work is compared with a copy that moves as much.
double cpu_copy_gigabytes(double bytes);

// On a card: the rate of the library's own largest product, 8192 cubed. Not a peak of the hardware but what can be reached in practice;
// 0 when the device cannot multiply yet.
double cuda_product_gflops(Device device, Compute compute);

}  // namespace twinlens::bench
