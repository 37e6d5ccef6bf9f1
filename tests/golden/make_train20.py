"""20 AdamW steps of a small ViT CLIP, in float64 and in fp32, from the same weights and batches.

Run: python3 tests/golden/make_train20.py      (writes tests/golden/data/train20.{safetensors,json}, about 30 s)
"""
import copy
import math

import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip_train.scheduler import cosine_lr

import golden

STEPS, BATCH = 20, 8
MODEL = {
    "embed_dim": 32,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 40, "head_width": 8, "layers": 2},
    "text_cfg": {"context_length": 12, "vocab_size": 128, "width": 24, "heads": 2, "layers": 2},
}
OPTIM = {"lr": 1e-3, "warmup": 5, "steps": STEPS, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.2}
SOT, EOT = 126, 127


def make_batches(rng):
    """Images as bytes u that mean (u - 128) / 64, exact in f32; captions of 1 to 10 body tokens, zero padded."""
    images = torch.from_numpy(rng.integers(0, 256, (STEPS, BATCH, 3, 32, 32)).astype("uint8"))
    tokens = torch.zeros(STEPS, BATCH, 12, dtype=torch.long)
    for row in tokens.view(-1, 12):
        n = int(rng.integers(1, 11))
        row[: n + 2] = torch.tensor([SOT, *rng.integers(1, SOT, n), EOT])
    return images, tokens


def excluded(name, p):
    """open_clip 4.x: no decay for anything of ndim <= 1 nor for positional and class embeddings."""
    return p.ndim <= 1 or name.endswith(("positional_embedding", "class_embedding"))


def train(init, images, tokens, dtype, order, steps=STEPS):
    model = copy.deepcopy(init).to(dtype).train()
    params = dict(model.named_parameters())
    groups = [
        {"params": [p for n, p in params.items() if excluded(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in params.items() if not excluded(n, p)], "weight_decay": OPTIM["weight_decay"]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=OPTIM["lr"], betas=(OPTIM["beta1"], OPTIM["beta2"]), eps=OPTIM["eps"])
    schedule = cosine_lr(optimizer, OPTIM["lr"], OPTIM["warmup"], STEPS)
    out = {"losses": [], "lrs": [], "scales": []}
    for step in range(steps):
        out["lrs"].append(schedule(step))
        pictures = ((images[step][order].float() - 128) / 64).to(dtype)
        image, text, scale = model(pictures, tokens[step][order])
        loss = ClipLoss()(image, text, scale)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            back = order.argsort()
            out["features0"] = {"image": image[back], "text": text[back]}
            out["grad0"] = {n: p.grad.clone() for n, p in params.items()}
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        out["losses"].append(loss.item())
        out["scales"].append(model.logit_scale.item())
    out["final"] = {n: p.detach() for n, p in params.items()}
    return out


def main():
    rng = golden.seed(20)
    init = CLIP(**MODEL)
    images, tokens = make_batches(rng)
    truth = train(init, images, tokens, torch.float64, torch.arange(BATCH))
    runs = golden.fp32_runs(rng, BATCH, lambda order: train(init, images, tokens, torch.float32, order))

    # The error of a single number is one draw, where that of a tensor is the norm of many: nine runs say too little about its largest. At the
    # first step that is so of every gradient of the image tower: all images still have nearly one direction, along which eight captions'
    # errors are eight numbers, and they are in all of its tensors alike.
    one_step = golden.fp32_runs(rng, BATCH, lambda order: train(init, images, tokens, torch.float32, order, steps=1), more=400)

    t = {"images_u8": images, "tokens": tokens}
    t |= {f"init.{n}": p for n, p in init.named_parameters()}
    for kind, err in (("grad0", "err_grad0"), ("final", "err")):
        for n, value in truth[kind].items():
            of = runs + one_step if kind == "grad0" else runs
            golden.put(t, kind, err, n, value, [run[kind][n] for run in of])
    for side in ("image", "text"):
        golden.put(t, "features0", "err_features0", side, truth["features0"][side], [r["features0"][side] for r in runs])
    f64 = lambda xs: torch.tensor(xs, dtype=torch.float64)
    t["losses"], t["losses_fp32"] = f64(truth["losses"]), f64(runs[0]["losses"])
    t["lrs"], t["logit_scales"] = f64(truth["lrs"]), f64(truth["scales"])
    no_decay = [n for n, p in init.named_parameters() if excluded(n, p)]
    golden.save("train20", t, {"model": MODEL, "optimizer": OPTIM, "batch": BATCH, "logit_scale_max": math.log(100),
                               "no_weight_decay": no_decay})


if __name__ == "__main__":
    main()
