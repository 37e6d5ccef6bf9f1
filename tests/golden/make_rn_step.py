"""One training-mode forward and backward of a small ModifiedResNet CLIP in float64, then its eval-mode features.

Run: python3 tests/golden/make_rn_step.py      (writes tests/golden/data/rn_step.{safetensors,json}, a few seconds)
"""
import copy

import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP

import golden

BATCH = 4
MODEL = {
    "embed_dim": 32,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 128, "width": 8, "heads": 2, "layers": 1},
}
SOT, EOT = 126, 127


def build(rng):
    """open_clip's initialisation has bn3.weight = 0, which hides the residual branches, so norms are moved off it."""
    model = CLIP(**MODEL)
    with torch.no_grad():
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            norm = "bn" in name or "downsample.1" in name
            if name.endswith("running_mean"):
                x.copy_(golden.randn(rng, *x.shape, scale=0.2))
            elif name.endswith("running_var"):
                x.copy_(1 + 0.3 * golden.randn(rng, *x.shape).abs())
            elif norm and name.endswith("weight"):
                x.copy_(1 + golden.randn(rng, *x.shape, scale=0.2))
            elif name.endswith("bias"):
                x.copy_(golden.randn(rng, *x.shape, scale=0.1))
    return model


def run(init, images, tokens, dtype, order):
    model = copy.deepcopy(init).to(dtype).train()
    pictures = ((images[order].float() - 128) / 64).to(dtype)
    image, text, scale = model(pictures, tokens[order])
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    back = order.argsort()
    out = {
        "train": {"image": image[back], "text": text[back], "loss": loss},
        "grad": {n: p.grad for n, p in model.named_parameters()},
        "after": {n: b for n, b in model.named_buffers() if "running" in n},
    }
    with torch.no_grad():
        image, text, _ = model.eval()(pictures, tokens[order])
    out["eval"] = {"image": image[back], "text": text[back]}
    return out


def main():
    rng = golden.seed(50)
    init = build(rng)
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, 3, 64, 64)).astype("uint8"))
    tokens = torch.zeros(BATCH, 12, dtype=torch.long)
    for row, n in zip(tokens, (1, 4, 7, 10)):
        row[: n + 2] = torch.tensor([SOT, *rng.integers(1, SOT, n), EOT])
    truth = run(init, images, tokens, torch.float64, torch.arange(BATCH))
    runs = golden.fp32_runs(rng, BATCH, lambda order: run(init, images, tokens, torch.float32, order))

    t = {"images_u8": images, "tokens": tokens}
    t |= {f"init.{n}": x for n, x in init.state_dict().items()}
    for kind in truth:
        for n, value in truth[kind].items():
            golden.put(t, kind, f"err_{kind}", n, value, [r[kind][n] for r in runs])
    golden.save("rn_step", t, {"model": MODEL, "batch": BATCH, "bn_momentum": 0.1, "bn_eps": 1e-5})


if __name__ == "__main__":
    main()
