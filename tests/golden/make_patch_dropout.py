"""Image towers that see some of their patches, as in training with patch dropout: open_clip's PatchDropout and timm's, told which to keep.

Run: python3 tests/golden/make_patch_dropout.py      (writes tests/golden/data/patch_dropout.{safetensors,json}, seconds)
"""
import numpy
import open_clip.transformer
import timm.layers
import torch
from open_clip.model import CLIP
from timm.models.vision_transformer import VisionTransformer
from torch.func import functional_call

import golden

BATCH, PATCHES, KEPT = 5, 9, 3
VISION = {"image_size": 12, "patch_size": 4, "width": 12, "head_width": 4, "layers": 2, "mlp_ratio": 2.0, "patch_dropout": 0.6}
TEXT = {"context_length": 9, "vocab_size": 24, "width": 12, "heads": 3, "layers": 1}
CASES = {
    "tok": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
    "avg": {"embed_dim": 8, "vision_cfg": VISION | {"pool_type": "avg", "no_ln_pre": True}, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": 12, "custom_text": True,
        "vision_cfg": {"image_size": 12, "timm_model_name": "vit_custom_patch4_siglip_12", "patch_size": 4, "width": 12, "head_width": 4, "layers": 2,
                       "mlp_ratio": 2.0, "patch_dropout": 0.6, "act_kwargs": {"approximate": "tanh"}},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
}


def keep(kept):
    """Both libraries' modules, with what they would draw put in the place of their random numbers."""
    def open_clips(self, x):
        assert self.training and max(1, int((x.shape[1] - 1) * (1 - self.prob))) == kept.shape[1]
        return torch.cat([x[:, :1], x[:, 1:].gather(1, kept[..., None].expand(-1, -1, x.shape[2]))], 1)

    def timms(self, x):
        assert self.training and max(1, int(x.shape[1] * (1 - self.prob))) == kept.shape[1]
        return x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))

    open_clip.transformer.PatchDropout.forward = open_clips
    timm.layers.PatchDropout.forward = timms


def image_tower(case, config):
    if case != "siglip":
        return CLIP(**config).visual, "visual."
    trunk = VisionTransformer(img_size=12, patch_size=4, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2.0, class_token=False, global_pool="map",
                              num_classes=0, act_layer="gelu_tanh", patch_drop_rate=0.6)
    return trunk, "visual.trunk."


def main():
    t = {}
    for case, config in CASES.items():
        rng = golden.seed(len(case))
        tower, prefix = image_tower(case, config)
        tower.train()
        params = {n: p.detach() + golden.randn(rng, *p.shape, scale=0.1) for n, p in tower.named_parameters()}
        kept = torch.stack([torch.from_numpy(rng.permutation(PATCHES)[:KEPT]).sort().values for _ in range(BATCH)])
        ins = {"images": golden.randn(rng, BATCH, 3, 12, 12)}

        def run(i, p, order=None):
            order = torch.arange(BATCH) if order is None else order
            keep(kept[order].flip(1) if order[0] % 2 else kept[order])  # (the order of patches means nothing)
            module = tower.to(i["images"].dtype)
            y = functional_call(module, {n.removeprefix(prefix): x for n, x in p.items()}, (i["images"][order],))
            return {"image": y[order.argsort()]}

        # (The largest error of twelve orders alone is as little as seven tenths of that of 400.)
        more = numpy.random.default_rng(len(case))
        orders = [rng.permutation(BATCH) for _ in range(12)] + [more.permutation(BATCH) for _ in range(388)]
        again = [lambda i, p, o=torch.from_numpy(order): run(i, p, o) for order in orders]
        params = {prefix + n: x for n, x in params.items()}
        golden.put_case(t, case, run, ins, params, {"image": golden.randn(rng, BATCH, config["embed_dim"])}, grad_in=False, again=again)
        t[f"{case}.in.kept"] = kept
    golden.save("patch_dropout", t, CASES)


if __name__ == "__main__":
    main()
