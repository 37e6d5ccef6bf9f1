# The one list of ops. A line is `name` (CPU kernel only, so far) or `name+cuda`; `+bf16dot` compiles it for avx512bf16 too. From it come the mirrored paths
# kernels/include/twinlens/kernels/<name>.h, kernels/cpu/<name>.cpp and kernels/cuda/<name>.cu; the build stops when one is missing.
set(TWINLENS_OPS
    accumulate+cuda
    affine
    attention
    bias_gradient
    binary
    copy+cuda
    cross_entropy
    index_select
    l2_normalize
    layer_norm+cuda
    matmul+bf16dot
    patchify
    reduce_rows
    softmax
    topk
    unary
    where)
