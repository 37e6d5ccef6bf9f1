#pragma once

namespace twinlens::test {

// The kernels of kernels/cuda as the fake card's, from now on.
void set_emulated_kernels();

}  // namespace twinlens::test
