# One line per file of tests/op_cases: name.cpp defines OpCases op_cases_<name>().
set(TWINLENS_OP_CASES
    attention
    binary
    concat
    cross_entropy
    index
    l2_normalize
    layer_norm
    linear
    matmul
    patchify
    pool2d
    softmax
    topk
    unary
    upsample
    where)
