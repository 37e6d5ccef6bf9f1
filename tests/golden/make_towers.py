"""Both towers of tiny CLIPs with uncommon options: features, and gradients of all parameters for a given upstream gradient.

Run: python3 tests/golden/make_towers.py      (writes tests/golden/data/towers.{safetensors,json}, a few seconds)
"""
import torch
from open_clip.model import CLIP
from torch.func import functional_call

import golden

BATCH = 3
VISION = {"image_size": 12, "patch_size": 4, "width": 12, "head_width": 4, "layers": 1}
TEXT = {"context_length": 9, "vocab_size": 24, "width": 12, "heads": 3, "layers": 1}
CASES = {
    "quick_gelu": {
        "embed_dim": 8, "quick_gelu": True,
        "vision_cfg": VISION | {"mlp_ratio": 2.0},
        "text_cfg": TEXT | {"layers": 2, "mlp_ratio": 2.0, "pool_type": "argmax"},
    },
    "mlp_ratio": {
        "embed_dim": 7,
        "vision_cfg": VISION | {"width": 16, "head_width": 8, "mlp_ratio": 2.5, "ls_init_value": 0.1},
        "text_cfg": TEXT | {"heads": 2, "mlp_ratio": 2.3, "ls_init_value": 0.1, "pool_type": "eos", "eos_id": 2},
    },
    "avg_pool": {
        "embed_dim": 8,
        "vision_cfg": VISION | {"mlp_ratio": 2.0, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": TEXT | {"mlp_ratio": 2.0, "no_causal_mask": True, "pool_type": "last", "proj_bias": True,
                            "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}},
    },
    "no_ln_pre": {
        "embed_dim": 5,
        "vision_cfg": VISION | {"no_ln_pre": True, "mlp_ratio": 2.0, "image_size": 8},
        "text_cfg": TEXT | {"mlp_ratio": 2.0, "no_causal_mask": True, "pool_type": "first"},
    },
}
# The largest id ends a caption for argmax pooling (in row 1 it stands twice), id 2 for eos pooling.
TOKENS = torch.tensor([
    [22, 5, 2, 7, 23, 0, 0, 0, 0],
    [22, 9, 14, 23, 2, 23, 3, 0, 0],
    [22, 1, 20, 4, 8, 13, 2, 6, 23],
])


class Towers(torch.nn.Module):
    """The towers' own features, not the normalised ones that CLIP.forward gives."""

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, images, tokens):
        return {"image": self.clip.encode_image(images), "text": self.clip.encode_text(tokens)}


def channel_dim(name):
    """The dimension of a parameter that runs over the channels of its tower's residual stream, if any."""
    if name.endswith(("in_proj_bias", "c_fc.bias", "text_projection.bias")):
        return None
    over_columns = ("in_proj_weight", "c_fc.weight", "positional_embedding", "token_embedding.weight", "text_projection.weight")
    return 1 if name.endswith(over_columns) else 0


def reordered(towers, rng, config):
    """The same towers with samples and channels in another order: sums are taken in another order, and so rounded otherwise."""
    orders = {t: torch.from_numpy(rng.permutation(config[f"{t}_cfg"]["width"])) for t in ("vision", "text")}
    samples = torch.from_numpy(rng.permutation(BATCH))

    def run(i, p):
        moved = {}
        for name, x in p.items():
            order, dim = orders["vision" if name.startswith("visual.") else "text"], channel_dim(name)
            moved[name] = x if dim is None else x.index_select(dim, order)
        out = towers({name: x[samples] for name, x in i.items()}, moved)
        return {name: y[samples.argsort()] for name, y in out.items()}

    return run


def main():
    t = {}
    for case, config in CASES.items():
        rng = golden.seed(len(case))
        model = CLIP(**config)
        # Everything is moved off its initial value, so that no bias is zero and no gain is one.
        params = {n: p.detach() + golden.randn(rng, *p.shape, scale=0.1) for n, p in model.named_parameters()}
        # Powers of two: whoever folds a layer scale into the weights before it, as the tests do, rounds nothing.
        for n in params:
            if n.endswith(".gamma"):
                params[n] = params[n].sign() * torch.exp2(params[n].abs().log2().round())
        del params["logit_scale"]
        size = config["vision_cfg"]["image_size"]
        ins = {"images": golden.randn(rng, BATCH, 3, size, size), "tokens": TOKENS}

        def towers(i, p):
            both = Towers(model.to(i["images"].dtype))
            return functional_call(both, {f"clip.{n}": x for n, x in p.items()}, (i["images"], i["tokens"]))

        grads = {n: golden.randn(rng, BATCH, config["embed_dim"]) for n in ("image", "text")}
        again = [reordered(towers, rng, config) for _ in range(8)]
        golden.put_case(t, case, towers, ins, params, grads, grad_in=False, again=again)
    golden.save("towers", t, CASES)


if __name__ == "__main__":
    main()
