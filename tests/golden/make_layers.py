"""Every layer on its own: outputs and gradients in float64 for stored inputs, parameters and upstream gradients.

Run: python3 tests/golden/make_layers.py      (writes tests/golden/data/layers.{safetensors,json}, a few seconds)
"""
import math

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn
from torch.func import functional_call

import golden

rng = golden.seed(3)
tensors, attributes = {}, {}


def case(name, fn, ins, params=None, **attrs):
    """`fn(ins, params)` gives one tensor y, or a dict of tensors of which only `y` receives an upstream gradient."""
    def outputs(i, p):
        y = fn(i, p)
        return y if isinstance(y, dict) else {"y": y}

    params = params or {}
    shape = outputs(ins, params)["y"].shape
    golden.put_case(tensors, name, outputs, ins, params, {"y": golden.randn(rng, *shape)})
    attributes[name] = attrs


def randn(*shape, scale=1.0):
    return golden.randn(rng, *shape, scale=scale)


def module_case(name, module, x, call=None, **attrs):
    """A torch module with every parameter drawn afresh: gains about one, the rest about fan_in^-0.5."""
    params = {}
    for n, p in module.named_parameters():
        if n.endswith("weight") and p.ndim == 1:
            params[n] = 1 + randn(*p.shape, scale=0.3)
        else:
            params[n] = randn(*p.shape, scale=0.3 if p.ndim == 1 else math.prod(p.shape[1:]) ** -0.5)
    call = call or (lambda m, p, i: functional_call(m, p, (i["x"],)))
    case(name, lambda i, p: call(module, p, i), {"x": x}, params, **attrs)


def fn_case(name, fn, x, **attrs):
    case(name, lambda i, p: fn(i["x"]), {"x": x}, **attrs)


def linear_and_norms():
    module_case("linear", nn.Linear(7, 5), randn(6, 7))
    module_case("linear_3d", nn.Linear(9, 17), randn(2, 3, 9))
    module_case("linear_no_bias", nn.Linear(13, 3, bias=False), randn(4, 13))
    module_case("layer_norm", nn.LayerNorm(19), 2 + randn(2, 3, 19), eps=1e-5)
    module_case("layer_norm_eps6", nn.LayerNorm(8, eps=1e-6), randn(5, 8, scale=1e-2), eps=1e-6)
    module_case("embedding", nn.Embedding(11, 6), torch.tensor([[3, 0, 3, 10], [7, 3, 1, 0]]))


def batch_norm():
    x = 0.5 + randn(3, 5, 4, 3)
    params = {"weight": 1 + randn(5, scale=0.3), "bias": randn(5, scale=0.3)}
    before = {"running_mean": randn(5, scale=0.2), "running_var": 1 + randn(5, scale=0.3).abs()}

    def train(i, p):
        mean, var = (b.detach().to(i["x"].dtype).clone() for b in before.values())
        y = F.batch_norm(i["x"], mean, var, p["weight"], p["bias"], training=True, momentum=0.1, eps=1e-5)
        return {"y": y, "running_mean": mean, "running_var": var}

    def evaluate(i, p):
        mean, var = (b.to(i["x"].dtype) for b in before.values())
        return F.batch_norm(i["x"], mean, var, p["weight"], p["bias"], training=False, eps=1e-5)

    for name, fn in (("batch_norm_train", train), ("batch_norm_eval", evaluate)):
        case(name, fn, {"x": x}, params, eps=1e-5, momentum=0.1)
        tensors.update({f"{name}.in.{n}": b for n, b in before.items()})


def convolutions():
    variants = {  # name: (channels in, channels out, kernel, height, width, more)
        "conv2d": (3, 4, 3, 6, 5, dict(padding=1)),
        "conv2d_no_bias": (3, 5, 3, 7, 7, dict(padding=1, stride=2, bias=False)),
        "conv2d_1x1": (6, 4, 1, 3, 5, dict(bias=False)),
        "conv2d_patch": (3, 7, 4, 8, 12, dict(stride=4, bias=False)),
        "conv2d_groups": (4, 6, 3, 5, 5, dict(padding=1, groups=2)),
        "conv2d_depthwise": (5, 5, 3, 6, 6, dict(padding=1, stride=2, groups=5)),
        "conv2d_dilation": (2, 3, 3, 9, 8, dict(padding=2, dilation=2)),
        "conv2d_uneven": (2, 3, (3, 5), 8, 9, dict(padding=(0, 2), stride=(2, 1), dilation=(1, 2))),
    }
    for name, (c_in, c_out, kernel, h, w, more) in variants.items():
        conv = nn.Conv2d(c_in, c_out, kernel, **more)
        pick = ("kernel_size", "stride", "padding", "dilation", "groups")
        module_case(name, conv, randn(2, c_in, h, w), **{k: getattr(conv, k) for k in pick})
    up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    module_case("conv_transpose2d", up, randn(2, 4, 4, 3), kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))


def attention():
    def attend(m, p, i, causal=False, context=None):
        mask = torch.full((i["x"].shape[1],) * 2, -math.inf, dtype=i["x"].dtype).triu(1) if causal else None
        kv = i["x"] if context is None else i[context]
        return functional_call(m, p, (i["x"], kv, kv), dict(need_weights=False, attn_mask=mask))[0]

    make = lambda: nn.MultiheadAttention(12, 3, batch_first=True)
    module_case("mha_full", make(), randn(2, 5, 12), attend, heads=3, causal=False)
    module_case("mha_causal", make(), randn(2, 7, 12), lambda m, p, i: attend(m, p, i, causal=True), heads=3, causal=True)
    cross = make()
    params = {n: randn(*p.shape, scale=0.3) for n, p in cross.named_parameters()}
    case("mha_cross", lambda i, p: attend(cross, p, i, context="context"),
         {"x": randn(2, 3, 12), "context": randn(2, 6, 12)}, params, heads=3, causal=False)

    def sdpa(i, p, causal):
        return F.scaled_dot_product_attention(i["q"], i["k"], i["v"], is_causal=causal)

    qkv = lambda: {n: randn(2, 3, 6, 5) for n in "qkv"}
    case("attention_full", lambda i, p: sdpa(i, p, False), qkv(), causal=False)
    case("attention_causal", lambda i, p: sdpa(i, p, True), qkv(), causal=True)


def blocks():
    for act_name, act in (("gelu", nn.GELU), ("quick_gelu", QuickGELU)):
        mlp = nn.Sequential()
        mlp.add_module("c_fc", nn.Linear(6, 15))
        mlp.add_module("gelu", act())
        mlp.add_module("c_proj", nn.Linear(15, 6))
        module_case(f"mlp_{act_name}", mlp, randn(2, 4, 6), activation=act_name)

    def causal(m, p, i):
        mask = torch.full((i["x"].shape[1],) * 2, -math.inf, dtype=i["x"].dtype).triu(1)
        return functional_call(m, p, (i["x"],), dict(attn_mask=mask))

    module_case("block", ResidualAttentionBlock(8, 2), randn(2, 5, 8), heads=2, activation="gelu", causal=False)
    module_case("block_causal", ResidualAttentionBlock(8, 4, mlp_ratio=2.5, act_layer=QuickGELU), randn(2, 6, 8), causal,
                heads=4, activation="quick_gelu", causal=True)
    module_case("block_layer_scale", ResidualAttentionBlock(6, 2, mlp_ratio=2.0, ls_init_value=0.1), randn(2, 4, 6),
                heads=2, activation="gelu", causal=False)
    module_case("attention_pool2d", AttentionPool2d(2, 16, 4, 6), randn(3, 16, 2, 2), heads=4)


def pooling():
    fn_case("avg_pool2d", nn.AvgPool2d(2), randn(2, 3, 6, 7), kernel_size=2, stride=2, padding=0)
    fn_case("avg_pool2d_k3", nn.AvgPool2d(3, 2, 1), randn(2, 3, 7, 6), kernel_size=3, stride=2, padding=1, count_include_pad=True)
    fn_case("max_pool2d", nn.MaxPool2d(2), randn(2, 3, 6, 7), kernel_size=2, stride=2, padding=0)
    fn_case("max_pool2d_k3", nn.MaxPool2d(3, 2, 1), randn(2, 3, 7, 6), kernel_size=3, stride=2, padding=1)
    fn_case("upsample_nearest", nn.Upsample(scale_factor=2), randn(2, 3, 3, 4), scale=2)


def pointwise_and_rows():
    x = torch.cat([3 * randn(40), torch.tensor([-30.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 30.0])])
    fn_case("gelu", F.gelu, x)
    fn_case("gelu_tanh", nn.GELU("tanh"), x)
    fn_case("quick_gelu", QuickGELU(), x)
    fn_case("silu", F.silu, x)
    fn_case("sigmoid", torch.sigmoid, x)
    fn_case("log_sigmoid", F.logsigmoid, x)
    fn_case("relu", F.relu, x[x != 0])
    rows = 4 * randn(5, 11)
    rows[1] += 100
    fn_case("log_softmax", lambda y: y.log_softmax(-1), rows)
    masked = rows.clone()
    masked[2, 3] = -math.inf
    fn_case("softmax", lambda y: y.softmax(-1), masked)
    targets = torch.tensor([3, 0, 10, 5, 5])
    case("cross_entropy", lambda i, p: F.cross_entropy(i["x"], i["targets"]), {"x": 4 * randn(5, 11), "targets": targets})
    norm_rows = randn(4, 9)
    norm_rows[1] *= 1e3
    norm_rows[2] *= 1e-4
    fn_case("l2_normalize", lambda y: F.normalize(y, dim=-1), norm_rows, eps=1e-12)


def main():
    for part in (linear_and_norms, batch_norm, convolutions, attention, blocks, pooling, pointwise_and_rows):
        part()
    golden.save("layers", tensors, attributes)


if __name__ == "__main__":
    main()
