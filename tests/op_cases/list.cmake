# One line per file of tests/op_cases: name.cpp defines OpCases op_cases_<name>().
set(TWINLENS_OP_CASES
    attention
    layer_norm
    patchify
    pool2d
    upsample)
