"""Full-size models with weights by name (counted.py): embeddings and gradients of open_clip and transformers.

For each case: unit embeddings of 2 pictures and 2 captions in fp32; how far those of PyTorch's bf16 autocast are from them (mean over rows of the
2-norm); the CLIP loss of the two pairs in training mode, and of its gradient for each parameter, in the order of the sorted names, the 2-norm
and two sums with pseudo-random signs, which stand for all of it.

Run: python3 tests/golden/make_parity.py [case...]      (writes tests/golden/data/parity.{safetensors,json}; minutes and 8 GB for the large ones)
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
BATCH = 2
SKETCHES = 2


def tokens_of(case, context, vocabulary, pad):
    """[start, ids..., end, pad...]: start and end are the largest ids of the vocabulary."""
    rows = np.full((BATCH, context), pad, dtype=np.int64)
    for b in range(BATCH):
        n = 5 + 6 * b
        ids = counted.bits(f"{case}.tokens.{b}", 0, n) % np.uint64(vocabulary - 4)
        rows[b, :n + 2] = [vocabulary - 2, *(ids.astype(np.int64) + 1), vocabulary - 1]
    return torch.from_numpy(rows)


def open_clip_model(name):
    import open_clip
    model = open_clip.create_model(name, pretrained=None)
    config = open_clip.get_model_config(name)
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


def run_case(name, t):
    torch.manual_seed(0)
    model, size, text, encode_image, encode_text = (hugging_face_model if name in HUGGING_FACE else open_clip_model)(name)
    with torch.no_grad():
        for n, x in model.state_dict().items():
            if x.is_floating_point():
                x.copy_(torch.from_numpy(counted.weight(n, tuple(x.shape))))
    images = torch.from_numpy(counted.normal(f"{name}.images", (BATCH, 3, size, size)))
    tokens = tokens_of(name, *text)

    def features(dtype=torch.float32):
        return [F.normalize(f.to(dtype), dim=-1) for f in (encode_image(images), encode_text(tokens))]

    model.eval()
    with torch.no_grad():
        fp32 = features()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            bf16 = features()
    for tower, a, b in zip(("image", "text"), fp32, bf16):
        t[f"{name}.{tower}"] = a.float()
        t[f"{name}.bf16_distance.{tower}"] = (a - b).norm(dim=1).mean().double()
    t[f"{name}.tokens"] = tokens
    # Gradients in float64, and with running statistics: through batch norm over so few pictures float32 is percents away from float64, in
    # PyTorch too. (rn_step.safetensors has a step with the batch's own statistics.)
    model.double()
    images = images.double()
    image, caption = features(torch.float64)
    logits = model.logit_scale.exp() * image @ caption.T
    labels = torch.arange(BATCH)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    loss.backward()
    t[f"{name}.loss"] = loss.detach().double()
    names, norms, sketches = [], [], []
    for n, p in sorted(model.named_parameters()):
        if p.grad is None:
            continue
        g = p.grad.numpy()
        names.append(n)
        norms.append(float(p.grad.double().norm()))
        sketches.append([counted.signs_dot(f"sketch{k}.{n}", g) for k in range(SKETCHES)])
        p.grad = None
    t[f"{name}.gradient_norms"] = torch.tensor(norms, dtype=torch.float64)
    t[f"{name}.gradient_sketches"] = torch.tensor(sketches, dtype=torch.float64)
    print(name, "loss", float(loss), "bf16", [float(t[f"{name}.bf16_distance.{w}"]) for w in ("image", "text")], len(names), flush=True)
    return names


def main():
    cases = sys.argv[1:] or [*OPEN_CLIP, *HUGGING_FACE]
    path = golden.DATA / "parity.safetensors"
    t = load_file(path) if path.exists() else {}
    info = json.loads((golden.DATA / "parity.json").read_text()) if path.exists() else {}
    for case in cases:
        t = {k: v for k, v in t.items() if not k.startswith(case + ".")}
        names = run_case(case, t)
        config = {"hugging_face": HUGGING_FACE[case]} if case in HUGGING_FACE else {}
        info[case] = {"gradients": len(names)} | config
        golden.save("parity", t)
        golden.save_json("parity", info, depth=1)


if __name__ == "__main__":
    main()
