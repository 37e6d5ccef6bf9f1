# The one list of ops. A line is `name` (CPU kernel only, so far) or `name+cuda`; `+bf16` compiles it for avx512bf16 too, `+bf16dot` for
# avx512bf16 and avx512amx (UsesBf16 in twinlens/kernels/isa.h). From it come the mirrored paths kernels/include/twinlens/kernels/<name>.h,
# kernels/cpu/<name>.cpp and kernels/cuda/<name>.cu; the build stops when one is missing.
set(TWINLENS_OPS
    accumulate+cuda
    adamw+cuda
    affine+cuda
    attention+cuda+bf16dot
    batch_norm+cuda+bf16
    bias_gradient+cuda+bf16
    binary+cuda+bf16
    copy+cuda
    cross_entropy+cuda
    dropout+cuda
    im2col+cuda
    index_select+cuda
    info_nce+cuda
    l2_normalize+cuda
    layer_norm+cuda+bf16
    matmul+cuda+bf16dot
    norm2+cuda
    patchify+cuda
    pool2d+cuda
    random_fill+cuda
    recolor+cuda
    reduce_rows+cuda
    resize+cuda
    sample+cuda
    softmax+cuda+bf16
    step_verdict+cuda
    tone+cuda
    topk+cuda
    unary+cuda+bf16
    upsample+cuda
    where+cuda)
