#pragma once
// Instructions that C++ has no words for, and nothing else: tests/fake_card/emulation has this file's functions for the host.
//
// Tensor-core products of 16 x 8 x 16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"), and tiles in shared memory.
//
// With g = lane / 4 and t = lane % 4, a register holds two neighbouring elements:
//   a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8)     of a (16 rows, 16 depth)
//   b[0] (2t, g), b[1] (2t + 8, g)                                             of b (16 depth, 8 columns); a pair runs along the depth
//   c[0], c[1] (g, 2t), (g, 2t + 1);  c[2], c[3] (g + 8, 2t), (g + 8, 2t + 1)  of the sums (16 rows, 8 columns), f32
// So the sums of two neighbouring tiles of 8 columns, rounded, are the `a` of a product whose depth is these 16 columns.

#include <cstdint>

#include "kernels/cuda/device/element.cuh"

namespace twinlens::cuda {

template <class T>
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (__is_same(T, bf16)) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Four 8 x 8 matrices in shared memory; lane 8 m + i gives row i of matrix m. Register m holds (g, 2t) and its neighbour of matrix m.
__device__ inline void load_matrices(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, turned: register m holds (2t, g) and (2t + 1, g).
__device__ inline void load_matrices_turned(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

template <class T>
__device__ inline unsigned pack_pair(float low, float high) {
  unsigned r;
  if constexpr (__is_same(T, bf16)) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  }
  return r;
}

// 2^x and 1 / x; exact enough for what becomes a number of two bytes.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// One store to memory, which a plain one of several registers need not be.
__device__ inline void store_word(uint4* to, const uint4& word) {
  asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w) : "memory");
}
__device__ inline void store_word(uint2* to, const uint2& word) {
  asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(word.x), "r"(word.y) : "memory");
}
__device__ inline void store_word(unsigned* to, unsigned word) { *to = word; }
__device__ inline void store_word(unsigned short* to, unsigned short word) { *to = word; }

// 16 bytes from memory to shared memory in the background; zeros where !real (`from` is then not read).
__device__ inline void copy_async(void* to, const void* from, bool real) {
  const int bytes = real ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// The copies that this thread has asked for since the last group are a group, and it waits until no more than kLeft groups are under way.
__device__ inline void end_group_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
__device__ inline void wait_for_groups_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace twinlens::cuda
