"""Full-size models with weights by name (counted.py): embeddings and gradients of open_clip and transformers.

For each case: unit embeddings of 2 pictures and 2 captions in fp32; how far those of PyTorch's bf16 autocast are from them (mean over rows of the
2-norm); the CLIP loss of the two pairs, and of its gradient for each parameter, in the order of the sorted names, the 2-norm
and two sums with pseudo-random signs, which stand for all of it. Loss and gradients are float64's, in evaluation mode: through batch norm over so few
pictures float32 is percents away from float64, in PyTorch too. (rn_step.safetensors has a step with the batch's own statistics.) How far the gradients
of PyTorch's own float32 are from them is printed, and the worst kept in parity.json.

Run: python3 tests/golden/make_parity.py [case...]      (writes tests/golden/data/parity.{safetensors,json}; minutes and 10 GB for the large ones)
"""
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import counted
import golden

OPEN_CLIP = ["ViT-B-32", "RN50", "ViT-B-32-quickgelu", "RN50x4", "ViT-B-16", "ViT-B-16-SigLIP", "ViT-L-14", "ViT-L-14-CLIPA"]
HUGGING_FACE = {
    "hf-clip": {"model_type": "clip", "projection_dim": 512, "text_config": {}, "vision_config": {}},
    "hf-siglip": {"model_type": "siglip", "text_config": {}, "vision_config": {}},
}
# CLIPA's kind, small: the mean of the patches, no ln_pre, no causal mask, the last token pooled. (open_clip's own begin at ViT-L-14.)
CONFIGS = {
    "small-CLIPA": {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 112, "layers": 6, "width": 384, "patch_size": 14, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {"context_length": 16, "vocab_size": 2000, "width": 256, "heads": 4, "layers": 4, "pool_type": "last", "no_causal_mask": True},
    },
}
BATCH = 2
SKETCHES = 2
STEP = 2.0**-16  # what biases before a ReLU are moved by
KINK = 2e-5  # nothing before a ReLU is nearer to 0 than this, times their root mean square


def images_of(case, size):
    """Noise over a colour for each quarter. (Two pictures of noise alone look the same to a ResNet: its embeddings are 0.002 apart, and what is
    left of float32's digits in the difference is what all gradients of the text tower are a multiple of. They also get twice the colour.)"""
    quarters = counted.normal(f"{case}.quarters", (BATCH, 3, 2, 2)).repeat(size // 2, axis=2).repeat(size // 2, axis=3)
    strength = np.float32(2 if case.startswith("RN") else 1)
    return torch.from_numpy(counted.normal(f"{case}.images", (BATCH, 3, size, size)) + strength * quarters)


def tokens_of(case, context, vocabulary, pad):
    """[start, ids..., end, pad...]: start and end are the largest ids of the vocabulary."""
    # A tower that is not causal pools a mean of mostly padding when captions are short, and the two captions differ by little more than rounding.
    lengths = (20, 40) if pad == 1 else (5, 11)
    rows = np.full((BATCH, context), pad, dtype=np.int64)
    for b, n in enumerate(lengths):
        ids = counted.bits(f"{case}.tokens.{b}", 0, n) % np.uint64(vocabulary - 4)
        rows[b, :n + 2] = [vocabulary - 2, *(ids.astype(np.int64) + 1), vocabulary - 1]
    return torch.from_numpy(rows)


def open_clip_model(name):
    import open_clip
    config = CONFIGS.get(name) or open_clip.get_model_config(name)
    model = open_clip.CLIP(**config) if name in CONFIGS else open_clip.create_model(name, pretrained=None)
    text = config["text_cfg"]
    pad = 1 if "SigLIP" in name else 0
    return (model, config["vision_cfg"]["image_size"], (text.get("context_length", 77), text.get("vocab_size", 49408), pad),
            model.encode_image, model.encode_text)


def hugging_face_model(name):
    import transformers
    config = HUGGING_FACE[name]
    if config["model_type"] == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(**config))
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(**config))
    text = model.config.text_config
    pad = 1 if name == "hf-siglip" else 0

    def tensor(out):
        return out if torch.is_tensor(out) else out.pooler_output

    return (model, model.config.vision_config.image_size, (text.max_position_embeddings, text.vocab_size, pad),
            lambda x: tensor(model.get_image_features(pixel_values=x)), lambda t: tensor(model.get_text_features(input_ids=t)))


def clear_kinks(model, encode_image, images):
    """Moves biases before a ReLU so that none of its inputs is so near to 0 that float32 may take another side than float64.

    Among the millions of inputs of a ResNet's ReLUs, a few are within float32's rounding of 0. There the gradient jumps: one input on the other side moves
    the gradients below it by 1e-3 of themselves, in any float32 program and in each at other places. So the test would measure luck. A bias of
    its channel moved by a few times 2^-16 leaves the weights as random as they were, and no input nearer to 0 than 70 times float32's usual error.
    Returns {name of the bias: [[channel, steps], ...]}: bias = float32(weight(name) + steps * 2^-16).
    """
    moved = {}

    def before_relu(bias, name):
        def hook(_, inputs):
            x = inputs[0]  # (B, C, H, W) float64
            margin = KINK * float(x.square().mean().sqrt())
            near = (x.abs() < margin).amax(dim=(0, 2, 3)).nonzero().flatten().tolist()
            for c in near:
                for steps in sorted(range(-127, 128), key=abs):
                    to = (bias[c].float() + np.float32(steps * STEP)).double()
                    if float((x[:, c] + (to - bias[c])).abs().min()) >= margin:
                        break
                else:
                    raise RuntimeError(f"{name}: channel {c} has no gap")
                x[:, c] += to - bias[c]
                bias[c] = to
                moved.setdefault(name, []).append([c, steps])
            return (x,)
        return hook

    hooks = []
    for n, m in model.named_modules():
        if isinstance(m, torch.nn.ReLU):
            name = n.replace(".act", ".bn") + ".bias"  # act1 follows bn1, and act3 the sum of bn3 and the shortcut
            hooks.append(m.register_forward_pre_hook(before_relu(model.get_parameter(name).data, name)))
    with torch.no_grad():
        if hooks:
            encode_image(images)
    for h in hooks:
        h.remove()
    return moved


def gradients(model, encode_image, encode_text, images, tokens):
    image, caption = (F.normalize(f.to(images.dtype), dim=-1) for f in (encode_image(images), encode_text(tokens)))
    logits = model.logit_scale.exp() * image @ caption.T
    labels = torch.arange(BATCH)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    loss.backward()
    found = {n: p.grad for n, p in sorted(model.named_parameters()) if p.grad is not None}
    for p in model.parameters():
        p.grad = None
    return float(loss.detach()), found


def run_case(name, t):
    torch.manual_seed(0)
    model, size, text, encode_image, encode_text = (hugging_face_model if name in HUGGING_FACE else open_clip_model)(name)
    with torch.no_grad():
        for n, x in model.state_dict().items():
            if x.is_floating_point():
                x.copy_(torch.from_numpy(counted.weight(n, tuple(x.shape))))
    images = images_of(name, size)
    tokens = tokens_of(name, *text)
    model.eval()
    moved = clear_kinks(model.double(), encode_image, images.double())
    model.float()
    with torch.no_grad():
        fp32 = [F.normalize(f, dim=-1) for f in (encode_image(images), encode_text(tokens))]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            bf16 = [F.normalize(f.float(), dim=-1) for f in (encode_image(images), encode_text(tokens))]
    for tower, a, b in zip(("image", "text"), fp32, bf16):
        t[f"{name}.{tower}"] = a.float()
        t[f"{name}.bf16_distance.{tower}"] = (a - b).norm(dim=1).mean().double()
    t[f"{name}.tokens"] = tokens
    _, single = gradients(model, encode_image, encode_text, images, tokens)
    loss, truth = gradients(model.double(), encode_image, encode_text, images.double(), tokens)
    t[f"{name}.loss"] = torch.tensor(loss, dtype=torch.float64)
    norms = {n: float(g.norm()) for n, g in truth.items()}
    whole = sum(x * x for x in norms.values())**0.5
    off = {n: float((single[n].double() - g).norm()) / max(norms[n], 1e-4 * whole) for n, g in truth.items()}  # as tests/clip/parity.cpp has it
    worst = sorted(off, key=off.get, reverse=True)
    t[f"{name}.gradient_norms"] = torch.tensor(list(norms.values()), dtype=torch.float64)
    t[f"{name}.gradient_sketches"] = torch.tensor([[counted.signs_dot(f"sketch{k}.{n}", g.numpy()) for k in range(SKETCHES)] for n, g in truth.items()],
                                                  dtype=torch.float64)
    print(name, "loss", loss, "bf16", [float(t[f"{name}.bf16_distance.{w}"]) for w in ("image", "text")], len(truth),
          "biases moved:", sum(map(len, moved.values())))
    print("  float32 from float64, worst:", ", ".join(f"{n} {off[n]:.1e}" for n in worst[:4]), flush=True)
    return {"gradients": len(truth), "torch_float32": float(f"{off[worst[0]]:.2g}")} | ({"moved_biases": moved} if moved else {})


def main():
    cases = sys.argv[1:] or [*OPEN_CLIP, *CONFIGS, *HUGGING_FACE]
    path = golden.DATA / "parity.safetensors"
    t = load_file(path) if path.exists() else {}
    info = json.loads((golden.DATA / "parity.json").read_text()) if path.exists() else {}
    for case in cases:
        t = {k: v for k, v in t.items() if not k.startswith(case + ".")}
        config = {"hugging_face": HUGGING_FACE[case]} if case in HUGGING_FACE else {"open_clip": CONFIGS[case]} if case in CONFIGS else {}
        info[case] = run_case(case, t) | config
        golden.save("parity", t)
        golden.save_json("parity", info, depth=1)


if __name__ == "__main__":
    main()
