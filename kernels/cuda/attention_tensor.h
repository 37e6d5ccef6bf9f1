#pragma once
// Attention on tensor cores (kernels/cuda/attention_tensor.cu), for what it takes; attention.cu has the plain kernels for the rest.

#include "twinlens/kernels/attention.h"

namespace twinlens::cuda {

bool tensor_takes(const AttentionForward& a);
bool tensor_takes(const AttentionBackward& a);
void launch_tensor(Stream& stream, const AttentionForward& a);
void launch_tensor(Stream& stream, const AttentionBackward& a);

}  // namespace twinlens::cuda
