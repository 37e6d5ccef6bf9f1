"""Image towers that pool by attention, tiny: open_clip's AttentionalPooler and timm's SigLIP trunk; and resized position embeddings.

Run: python3 tests/golden/make_poolers.py      (writes tests/golden/data/poolers.{safetensors,json}, seconds)
"""
import math
from types import SimpleNamespace

import numpy
import torch
from open_clip.model import CLIP, resize_pos_embed, resize_text_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch.func import functional_call

import golden

BATCH = 3
VISION = {"image_size": 12, "patch_size": 4, "width": 12, "head_width": 4, "layers": 2, "mlp_ratio": 2.0, "attn_pooler_queries": 5, "attn_pooler_heads": 2}
TEXT = {"context_length": 9, "vocab_size": 24, "width": 12, "heads": 3, "layers": 1}
CASES = {
    "pooler": {"embed_dim": 8, "vision_cfg": VISION | {"attentional_pool": True}, "text_cfg": TEXT},
    "pooler_avg": {"embed_dim": 12, "vision_cfg": VISION | {"attentional_pool": True, "pool_type": "avg"}, "text_cfg": TEXT},
    "sin_cos": {"embed_dim": 8, "vision_cfg": VISION | {"pos_embed_type": "sin_cos_2d"}, "text_cfg": TEXT},
    # The names and sizes of a trunk that timm has no name for; the text tower is not run.
    "siglip": {
        "embed_dim": 12, "custom_text": True,
        "vision_cfg": {"image_size": 14, "timm_model_name": "vit_custom_patch4_siglip_14", "patch_size": 4, "width": 12, "head_width": 4, "layers": 2,
                       "mlp_ratio": 2.0, "act_kwargs": {"approximate": "tanh"}},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}


def image_tower(case, config):
    v = config["vision_cfg"]
    if case != "siglip":
        return CLIP(**config).visual, "visual."
    trunk = VisionTransformer(img_size=14, patch_size=4, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2.0, class_token=False, global_pool="map",
                              num_classes=0, act_layer="gelu_tanh")
    assert v["width"] == 12
    return trunk, "visual.trunk."


def reordered(p, order):
    """The parameters with the channels of the residual stream in another order, which changes nothing but the rounding."""
    if any(name.startswith("visual.trunk.") for name in p):
        return reordered_trunk(p, order)
    out = {}
    for name, x in p.items():
        columns = name.endswith(("in_proj_weight", "c_fc.weight", "positional_embedding", "k_proj_weight", "v_proj_weight"))
        fixed = name.endswith(("in_proj_bias", "c_fc.bias")) or ("attn_pool." in name and ".ln_k." not in name and not columns)
        pooled = name.startswith(("visual.ln_post", "visual.proj"))  # after attentional pooling: other channels
        if name == "visual.attn_pool.attn.in_proj_weight":  # of queries, which are no rows of the stream, keys and values
            width = x.shape[1]
            out[name] = torch.cat([x[:width], x[width:].index_select(1, order)])
        else:
            out[name] = x if fixed or pooled else x.index_select(1 if columns else 0, order)
    return out


def reordered_trunk(p, order):
    out = {}
    for name, x in p.items():
        in_block = ".blocks." in name
        if name.endswith("pos_embed"):
            out[name] = x.index_select(2, order)
        elif name.endswith(("attn.qkv.weight", "attn_pool.kv.weight")) or (in_block and name.endswith("mlp.fc1.weight")):
            out[name] = x.index_select(1, order)
        elif "patch_embed." in name or name.startswith("visual.trunk.norm.") or (in_block and not name.endswith(("qkv.bias", "fc1.bias"))):
            out[name] = x.index_select(0, order)
        else:
            out[name] = x
    return out


def resized():
    """Position embeddings by open_clip's own functions: (case, before, grid or length, after)."""
    rng = golden.seed(3)
    for old, new in ((7, 12), (12, 7), (4, 5), (3, 8)):
        before = golden.randn(rng, old * old + 1, 6).double()
        state = {"visual.positional_embedding": before.clone()}
        model = SimpleNamespace(visual=SimpleNamespace(grid_size=(new, new)))
        resize_pos_embed(state, model)
        yield f"grid_{old}_{new}", before, state["visual.positional_embedding"]
    for old, new in ((77, 32), (9, 20)):
        before = golden.randn(rng, old, 6).double()
        state = {"positional_embedding": before.clone()}
        resize_text_pos_embed(state, SimpleNamespace(positional_embedding=torch.empty(new, 6)))
        yield f"text_{old}_{new}", before, state["positional_embedding"]


def main():
    t = {}
    for case, config in CASES.items():
        rng = golden.seed(len(case))
        tower, prefix = image_tower(case, config)
        params = {n: p.detach() if n == "positional_embedding" and case == "sin_cos" else
                  p.detach() + golden.randn(rng, *p.shape, scale=0.1) for n, p in tower.named_parameters()}
        fixed = {n: params.pop(n) for n in ("positional_embedding",) if case == "sin_cos"}
        size = config["vision_cfg"]["image_size"]
        ins = {"images": golden.randn(rng, BATCH, 3, size, size)}

        def run(i, p, order=None):
            module = tower.to(i["images"].dtype)
            images = i["images"] if order is None else i["images"][order]
            names = {n.removeprefix(prefix): x for n, x in p.items()} | {n: x.to(images.dtype) for n, x in fixed.items()}
            y = functional_call(module, names, (images,))
            return {"image": y if order is None else y[order.argsort()]}

        again = [lambda i, p, o=torch.from_numpy(rng.permutation(BATCH)): run(i, p, o) for _ in range(4)]
        # Errors of these small towers are a few roundings, magnified; the largest of eight orders was half of the largest of 32.
        if case in ("pooler", "siglip"):
            again += [lambda i, p, o=torch.from_numpy(rng.permutation(BATCH)), c=torch.from_numpy(rng.permutation(12)):
                      run(i, reordered(p, c), o) for _ in range(32)]
        else:
            again += [lambda i, p, o=torch.from_numpy(rng.permutation(BATCH)): run(i, p, o) for _ in range(8)]
        if case == "pooler_avg":
            more = numpy.random.default_rng(0)
            again += [lambda i, p, o=torch.from_numpy(more.permutation(BATCH)), c=torch.from_numpy(more.permutation(12)):
                      run(i, reordered(p, c), o) for _ in range(32)]
        params = {prefix + n: x for n, x in params.items()}
        t |= {f"{case}.fixed.{prefix}{n}": x for n, x in fixed.items()}
        golden.put_case(t, case, run, ins, params, {"image": golden.randn(rng, BATCH, config["embed_dim"])}, grad_in=False, again=again)
    for case, before, after in resized():
        t[f"{case}.before"], t[f"{case}.after"] = before.float(), after
        assert math.isfinite(float(after.sum()))
    golden.save("poolers", t, CASES)


if __name__ == "__main__":
    main()
