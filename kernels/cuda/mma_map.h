#pragma once
// Which row and column of a tile in shared memory a lane gives to ldmatrix, so that the four registers it gets are what mma.m16n8k16
// wants. Host and device; tests/kernels/cuda_geometry.cpp emulates ldmatrix and mma with them.

namespace twinlens::cuda {

#if defined(__CUDACC__)
#define TWINLENS_BOTH_SIDES __host__ __device__
#else
#define TWINLENS_BOTH_SIDES
#endif

struct TilePlace {
  int row, col;
};

// From x (16 columns n, 16 depth k) stored by rows of n: registers 0, 1 are b for n 0 to 7, registers 2, 3 for n 8 to 15.
TWINLENS_BOTH_SIDES constexpr TilePlace place_of_columns(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8}; }

// From x (16 depth k, 16 columns n) stored by rows of k, turned: registers 0, 1 are b for n 0 to 7, registers 2, 3 for n 8 to 15.
TWINLENS_BOTH_SIDES constexpr TilePlace place_of_depths(int lane) { return {lane % 8 + lane / 8 % 2 * 8, lane / 16 * 8}; }

#undef TWINLENS_BOTH_SIDES

}  // namespace twinlens::cuda
