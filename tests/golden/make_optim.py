"""Learning-rate schedules of open_clip, trajectories of AdamW and SGD with momentum, and gradient clipping, in float64.

Run: python3 tests/golden/make_optim.py      (writes schedules.json and optim.{safetensors,json} in tests/golden/data, a second)
"""
import torch
from open_clip_train.scheduler import const_lr, const_lr_cooldown, cosine_lr

import golden

SCHEDULES = {
    "cosine": (cosine_lr, dict(base_lr=5e-4, warmup_length=10, steps=100)),
    "cosine_no_warmup": (cosine_lr, dict(base_lr=1e-3, warmup_length=0, steps=30)),
    "const": (const_lr, dict(base_lr=3e-4, warmup_length=7, steps=40)),
    "const_cooldown": (const_lr_cooldown, dict(base_lr=1e-3, warmup_length=5, steps=60, cooldown_steps=20)),
    "const_cooldown_power": (const_lr_cooldown, dict(base_lr=1e-3, warmup_length=5, steps=60, cooldown_steps=25,
                                                     cooldown_power=2.0, cooldown_end_lr=1e-5)),
}
OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, dict(betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)),
    "adamw_no_decay": (torch.optim.AdamW, dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)),
    "sgd_momentum": (torch.optim.SGD, dict(momentum=0.9)),
    "sgd_momentum_decay": (torch.optim.SGD, dict(momentum=0.9, weight_decay=0.1)),
}
STEPS, SIZE = 25, 7


def schedules():
    out = {}
    for name, (make, settings) in SCHEDULES.items():
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.0)
        adjust = make(optimizer, **settings)
        out[name] = {"settings": settings, "lr": [adjust(step) for step in range(settings["steps"])]}
    golden.save_json("schedules", out)


def trajectory(make, settings, start, grads, lrs, dtype):
    x = start.to(dtype, copy=True).requires_grad_()
    optimizer = make([x], lr=1.0, **settings)
    path = []
    for grad, lr in zip(grads, lrs):
        optimizer.param_groups[0]["lr"] = lr
        x.grad = grad.to(dtype)
        optimizer.step()
        path.append(x.detach().clone())
    return torch.stack(path)


def clip(tensors, max_norm, dtype):
    params = [torch.zeros_like(g, dtype=dtype, requires_grad=True) for g in tensors.values()]
    for p, g in zip(params, tensors.values()):
        p.grad = g.to(dtype, copy=True)
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
    return {"norm": norm} | {n: p.grad for n, p in zip(tensors, params)}


def main():
    schedules()
    rng = golden.seed(5)
    t, attributes = {}, {}
    for name, (make, settings) in OPTIMIZERS.items():
        start = golden.randn(rng, SIZE)
        grads = golden.randn(rng, STEPS, SIZE)
        grads *= torch.tensor([1, 10, 1e-3, 1e-6, 1, 1, 1])  # the fourth is of the size of AdamW's eps
        grads[:, 4] = 0
        grads[::2, 5] = 0
        lrs = [1e-2 * (1 - step / STEPS) for step in range(STEPS)]
        run = lambda dtype: trajectory(make, settings, start, grads, lrs, dtype)
        t |= {f"{name}.in.x": start, f"{name}.in.grads": grads, f"{name}.in.lrs": torch.tensor(lrs, dtype=torch.float64)}
        golden.put(t, f"{name}.out", f"{name}.err.out", "path", run(torch.float64), [run(torch.float32)])
        attributes[name] = settings
    tensors = {"a": golden.randn(rng, 5, 3), "b": golden.randn(rng, 4)}
    for name, max_norm in (("clip", 1.0), ("clip_not_needed", 50.0)):
        truth, fp32 = clip(tensors, max_norm, torch.float64), clip(tensors, max_norm, torch.float32)
        t |= {f"{name}.in.{n}": x for n, x in tensors.items()}
        for n, value in truth.items():
            golden.put(t, f"{name}.out", f"{name}.err.out", n, value, [fp32[n]])
        attributes[name] = {"max_norm": max_norm}
    golden.save("optim", t, attributes)


if __name__ == "__main__":
    main()
