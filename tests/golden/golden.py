"""What the fixture generators share: seeding, float64 truth beside fp32 runs, and writing the files.

Truth is always a float64 run on parameters and inputs that are exactly representable in f32. Beside it stands how far
PyTorch's own fp32 run ends from that truth, as ||fp32 - f64||_2 per tensor: `err` is the plain run, `err_worst` the largest
over runs that differ only in what exact arithmetic would not show: the order of the samples or of the channels, and oneDNN or
plain kernels.
"""
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

DATA = Path(__file__).resolve().parent / "data"
torch.set_num_threads(1)


def seed(n):
    """Seeds torch (for open_clip's initialisers) and returns a numpy generator for everything else."""
    torch.manual_seed(n)
    return np.random.default_rng(n)


def randn(rng, *shape, scale=1.0):
    return torch.from_numpy(np.asarray(scale * rng.standard_normal(shape), dtype=np.float32))


def distance(a, b):
    """||a - b||_2 in float64, as a 0-d tensor."""
    return (a.detach().double() - b.detach().double()).norm()


def fp32_runs(rng, batch, run, more=8):
    """`run(order)` for the plain run first, then `more` with the samples reordered and, every other time, without oneDNN."""
    runs = [run(torch.arange(batch))]
    for i in range(more):
        with torch.backends.mkldnn.flags(enabled=i % 2 == 0):
            runs.append(run(torch.from_numpy(rng.permutation(batch))))
    return runs


def put(t, kind, err, name, truth, runs):
    """Adds `kind.name` (truth) with `err.name` (and, for several runs, `err_worst.name`), the plain fp32 run first.

    The key third of an in_proj_bias shifts every logit of a row alike: its exact gradient is zero, and what fp32 leaves
    there is noise. So these tensors also get their distances for the key third and for the rest apart.
    """
    t[f"{kind}.{name}"] = truth.double()
    pick = {"": lambda x: x}
    if name.endswith("in_proj_bias"):
        pick[".key"] = lambda x: x.chunk(3)[1]
        pick[".qv"] = lambda x: torch.cat([x.chunk(3)[0], x.chunk(3)[2]])
    for part, of in pick.items():
        far = torch.stack([distance(of(run), of(truth)) for run in runs])
        t[f"{err}.{name}{part}"] = far[0]
        if len(runs) > 1:
            t[f"{err}_worst.{name}{part}"] = far.max()


def put_case(t, case, fn, ins, params, grad_outs, grad_in=True, again=()):
    """Runs `outputs = fn(ins, params)` (three dicts by name) in float64 and fp32 and adds everything under `case.`:

    in.*, param.*, out.*, grad_out.* (a given upstream gradient), grad_in.*, grad_param.*, err.{out,grad_in,grad_param}.*
    `again`: functions that are `fn` in exact arithmetic; with them come err.{out,grad_in,grad_param}_worst.*
    """
    def run(dtype, fn=fn):
        cast = lambda xs: {n: x.to(dtype, copy=True).requires_grad_() if x.is_floating_point() else x for n, x in xs.items()}
        i, p = cast(ins), cast(params)
        outs = fn(i, p)
        torch.autograd.backward([outs[n] for n in grad_outs], [g.to(dtype) for g in grad_outs.values()])
        found = {f"out.{n}": y for n, y in outs.items()}
        found |= {f"grad_in.{n}": x.grad for n, x in i.items() if grad_in and x.grad is not None}
        found |= {f"grad_param.{n}": x.grad for n, x in p.items() if x.grad is not None}
        return found

    truth = run(torch.float64)
    fp32 = [run(torch.float32, f) for f in (fn, *again)]
    for same in (run(torch.float64, f) for f in again):
        assert all(distance(same[n], truth[n]) <= 1e-12 * max(1, truth[n].norm()) for n in truth), case
    for kind, xs in (("in", ins), ("param", params), ("grad_out", grad_outs)):
        t |= {f"{case}.{kind}.{n}": x for n, x in xs.items()}
    for n, value in truth.items():
        kind, rest = n.split(".", 1)
        put(t, f"{case}.{kind}", f"{case}.err.{kind}", rest, value, [found[n] for found in fp32])


def save(name, tensors, config=None):
    DATA.mkdir(exist_ok=True)
    flat = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    path = DATA / f"{name}.safetensors"
    save_file(flat, path, metadata={"format": "pt"})
    path.chmod(0o644)
    print(f"{path.name}: {len(flat)} tensors, {path.stat().st_size} bytes")
    if config is not None:
        save_json(name, config)


def dump(value, depth):
    """JSON with the outer `depth` levels spread over lines, and the rest compact."""
    if depth == 0 or not value or not isinstance(value, (dict, list)):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {dump(v, depth - 1)}" for k, v in value.items()) + "\n}"
    return "[\n" + ",\n".join(dump(v, depth - 1) for v in value) + "\n]"


def save_json(name, value, depth=2):
    DATA.mkdir(exist_ok=True)
    path = DATA / f"{name}.json"
    path.write_text(dump(value, depth) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")
