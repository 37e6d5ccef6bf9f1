#!/usr/bin/env python3
"""Parts of the work in twinlens and in its peers, in turns, in one run on one machine with the same threads.

    bench/parts_against_pytorch.py --python venv/bin/python
    bench/parts_against_pytorch.py --parts info_nce --pairs 16384 --rounds 3

  embed      pictures and captions to features: PyTorch eager and compiled (with frozen weights; in bf16 by autocast, or all of it in bf16), ONNX Runtime.
             From the same weights all sides must give the same features first. Peers get captions padded to the context, and in rows of
             their own cut to the longest caption of the batch; twinlens packs them.
  attention  forward and backward beside F.scaled_dot_product_attention.
  info_nce   the symmetric contrastive loss, forward and backward; extra memory counts what a step needs beside its inputs, gradients included. Each turn
             is a process of its own, so nobody's memory stays while another works.
  jpeg       a JPEG in memory to a normalised 3 x 224 x 224 tensor, on one thread: decoding, bicubic resize, crop; then a larger one, at full size and
             at the smallest scale that has as many pixels (--fast-decode; Pillow's draft mode).

A side is timed in rounds of about --seconds. A ratio is the time of the best peer over ours, the median over the rounds. The last line is one JSON document.
Needs torch; onnxruntime with onnx and onnxscript, torchvision and Pillow where they are there.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from against_pytorch import HERE, MALLOC, Side, processor, read_model, read_safetensors

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
# The rows of twinlens_bench: sequences, tokens, causal; 12 heads of 64.
ATTENTION = [(192, 50, False), (192, 77, True), (24, 197, False), (16, 257, False)]
WIDTH = 512  # of the features in info_nce


# --- peers: each a process that takes steps on demand ---------------------------------------------------------------------------------

def embed_step(spec):
    import torch
    import torch.nn.functional as F
    folder, variant = Path(spec["folder"]), spec["variant"]
    clip, pixels, tokens = read_model(folder)
    x = pixels if spec["tower"] == "image" else tokens
    if spec["cut"]:
        x = x[:, :int(read_safetensors(folder / "batch.safetensors")["lengths"].max())].contiguous()

    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = clip

        def forward(self, x):
            return F.normalize(self.clip.visual(x) if spec["tower"] == "image" else self.clip.encode_text(x), dim=-1)

    tower, about = Tower().eval(), {}
    if variant == "onnx":
        try:
            import onnx  # noqa: F401 (the exporter needs both)
            import onnxruntime
            import onnxscript  # noqa: F401
        except ImportError as error:
            sys.exit(f"left out: {error}")
        path = str(folder / "tower.onnx")
        torch.onnx.export(tower, (x,), path, input_names=["x"], dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        array = x.numpy()
        step = lambda: torch.from_numpy(session.run(None, {"x": array})[0])
        about["onnxruntime"] = onnxruntime.__version__
    else:
        if "pure" in variant:
            tower = tower.bfloat16()
            x = x.bfloat16() if x.is_floating_point() else x
        if "compile" in variant:
            tower = torch.compile(tower)

        def step():
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16,
                                                        enabled=spec["precision"] == "bf16" and "pure" not in variant):
                return tower(x)

    ours = read_safetensors(folder / "features.safetensors")["features"]
    about["apart"] = (step().float() - ours).norm(dim=-1).max().item()  # rows of unit length
    return step, about


def attention_step(spec):
    import torch
    import torch.nn.functional as F
    b, t, causal = spec["shape"]
    heads, dtype = 12, torch.bfloat16 if spec["precision"] == "bf16" else torch.float32
    dy = torch.rand(b, t, heads * 64).to(dtype)

    def joint(qkv):  # as in a Transformer: from a product's rows to a product's rows
        q, k, v = qkv.view(b, t, 3, heads, 64).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).reshape(b, t, heads * 64)

    if "separate" in spec["variant"]:  # in the kernel's own layout: nothing to rearrange
        inputs = [torch.rand(b, heads, t, 64).to(dtype).requires_grad_() for _ in range(3)]
        dy = torch.rand(b, heads, t, 64).to(dtype)
        call = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        inputs, call = [torch.rand(b, t, 3 * heads * 64).to(dtype).requires_grad_()], joint
    if "compile" in spec["variant"]:
        call = torch.compile(call)
    return lambda: torch.autograd.grad(call(*inputs), inputs, dy), {}


def info_nce_step(spec):
    import torch
    import torch.nn.functional as F
    n = spec["pairs"]
    image, text = (F.normalize(torch.randn(n, WIDTH), dim=-1).requires_grad_() for _ in range(2))
    scale = torch.tensor(2.66, requires_grad=True)
    labels = torch.arange(n)

    def loss(image, text, scale):
        logits = (scale.exp() * image) @ text.T
        other = (scale.exp() * text) @ image.T if "two products" in spec["variant"] else logits.T
        return (F.cross_entropy(logits, labels) + F.cross_entropy(other, labels)) / 2

    if "compile" in spec["variant"]:
        loss = torch.compile(loss)
    return lambda: torch.autograd.grad(loss(image, text, scale), (image, text, scale)), {}


def make_jpeg(path, width):
    """width x 3/4 width, quality 90: noise of several scales, which decodes like a photograph."""
    import numpy as np
    from PIL import Image
    random = np.random.default_rng(0)
    height = width * 3 // 4
    sum_ = np.full((height, width, 3), 128.0)
    for side, amplitude in ((4, 80), (16, 50), (64, 30), (256, 20)):
        noise = Image.fromarray(random.integers(0, 256, (side * 3 // 4, side, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
        sum_ += (np.asarray(noise, dtype=np.float64) - 128) / 128 * amplitude
    Image.fromarray(sum_.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def jpeg_step(spec):
    import io

    import torch
    from PIL import Image
    data = Path(spec["file"]).read_bytes()
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def opened():
        image = Image.open(io.BytesIO(data))
        if spec["fast"]:
            image.draft("RGB", (224, 224))
        return image.convert("RGB")

    about = {}
    if spec["variant"] == "numpy":
        import numpy as np
        shift, slope = np.array(mean, np.float32), np.array(std, np.float32) * 255

        def step():
            image = opened()
            w, h = image.size
            s = 224 / min(w, h)
            w, h = (224, int(h * s)) if w <= h else (int(w * s), 224)
            left, top = round((w - 224) / 2), round((h - 224) / 2)
            image = image.resize((w, h), Image.BICUBIC).crop((left, top, left + 224, top + 224))
            x = (np.asarray(image, np.float32) - shift * np.float32(255)) / slope
            return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))
    else:
        try:
            import torchvision
            from torchvision.io import ImageReadMode, decode_jpeg
            from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor, v2
        except ImportError as error:
            sys.exit(f"left out: {error}")
        about["torchvision"] = torchvision.__version__
        if spec["variant"] == "torchvision":
            transform = Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize(mean, std)])
            step = lambda: transform(opened())
        else:  # tensors all the way, which is not Pillow's resize to the last bit
            transform = v2.Compose([v2.Resize(224, InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True),
                                    v2.Normalize(mean, std)])
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            step = lambda: transform(decode_jpeg(encoded, ImageReadMode.RGB))
    x = step()
    assert x.shape == (3, 224, 224)
    return step, {**about, "mean": x.double().mean().item()}


def memory_of_process(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(what))


def worker(spec):
    import time

    import torch
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    step, about = globals()[f"{spec['part']}_step"](spec)
    print(json.dumps({"ready": True, "torch": torch.__version__, **about}), flush=True)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
        before, seconds, cpu_start = memory_of_process("VmRSS"), [], time.process_time()
        for _ in range(int(line)):
            begin = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begin)
        cpu = (time.process_time() - cpu_start) / spec["threads"] / len(seconds)
        # train_step, the other side of embed, answers with a median; the others with a mean.
        typical = statistics.median if spec["part"] == "embed" else statistics.mean
        print(json.dumps({"seconds": typical(seconds), "cpu_seconds": cpu, "extra_bytes": memory_of_process("VmHWM") - before}), flush=True)


# --- sides ----------------------------------------------------------------------------------------------------------------------------

class Steady(Side):
    """A process that stays for all rounds."""

    def prepare(self, seconds):
        self.steps(1)
        self.n = max(1, round(seconds / self.steps(1)["seconds"]))

    def turn(self):
        return self.steps(self.n)


class Fresh:
    """A process that lives for one turn: one step to warm up, which tells the memory, and those that count."""

    def __init__(self, name, start):
        self.name, self.start, self.about = name, start, {}
        self.seconds, self.cpu_seconds = [], []

    def prepare(self, seconds):
        self.least = seconds
        self.turn()  # does it run, and what is compiled is kept on disk

    def turn(self):
        side = self.start()
        self.about = side.about
        extra = side.steps(1)["extra_bytes"]
        answer = side.steps(1)
        if answer["seconds"] < self.least:
            answer = side.steps(round(self.least / answer["seconds"]))
        side.close()
        return {**answer, "extra_bytes": extra}

    def close(self):
        pass


class Row(Fresh):
    """A row of twinlens_bench."""

    def __init__(self, o, name):
        super().__init__("twinlens", None)
        self.o, self.row = o, name

    def prepare(self, seconds):
        self.least = seconds

    def turn(self):
        pattern = "^" + re.sub(r"[^\w /]", ".", self.row) + "/"
        command = [self.o.bin / "twinlens_bench", f"--benchmark_filter={pattern}", "--benchmark_format=json",
                   f"--benchmark_min_time={self.least}"]
        out = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(self.o.threads)}, stdout=subprocess.PIPE, check=True)
        rows = json.loads(out.stdout)["benchmarks"] if out.stdout.startswith(b"{") else []
        if len(rows) != 1 or "error_message" in rows[0]:
            raise RuntimeError(f"twinlens_bench has no row {self.row} that works")
        unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[rows[0]["time_unit"]]
        return {"seconds": rows[0]["real_time"] * unit, "cpu_seconds": rows[0]["cpu_time"] * unit / self.o.threads,
                "extra_bytes": rows[0]["extra_bytes"]}


def peer(o, name, **spec):
    """Starts a worker; RuntimeError when it cannot."""
    spec.setdefault("threads", o.threads)
    environment = {"OMP_NUM_THREADS": str(spec["threads"]), **MALLOC}
    if spec["part"] == "embed":
        environment["TORCHINDUCTOR_FREEZING"] = "1"
    if o.preload:
        environment["LD_PRELOAD"] = o.preload
    return Steady(name, [o.python, str(HERE / "parts_against_pytorch.py"), "--worker", json.dumps(spec)], environment)


def peers(o, variants, **spec):
    """One for each variant that starts."""
    sides = []
    for variant, name in variants.items():
        try:
            sides.append(peer(o, name, variant=variant, **spec))
        except RuntimeError as error:
            print(f"{error}", flush=True)
    return sides


def compare(o, what, ours, others, unit="ms", items=0, about=None):
    """Rounds in turns; prints the row and returns it."""
    ours.prepare(o.seconds)
    runs = []
    for side in others:
        try:
            side.prepare(o.seconds)
            runs.append(side)
        except (RuntimeError, OSError) as error:
            print(f"{side.name} is left out: {error}", flush=True)
    others, extra = runs, {}
    for _ in range(o.rounds):
        for side in [ours, *others]:
            answer = side.turn()
            side.seconds.append(answer["seconds"])
            side.cpu_seconds.append(answer["cpu_seconds"])
            extra[side.name] = max(extra.get(side.name, 0), answer.get("extra_bytes", 0))
    for side in [ours, *others]:
        side.close()
    seconds = {side.name: statistics.median(side.seconds) for side in [ours, *others]}
    shown = {name: f"{items / s:.1f} {unit}" if items else f"{1e3 * s:.2f} ms" for name, s in seconds.items()}
    row = {"what": what, "seconds": seconds, "cpu_seconds": {s.name: statistics.median(s.cpu_seconds) for s in [ours, *others]},
           "about": {s.name: {k: v for k, v in s.about.items() if k != "ready"} for s in others}, **(about or {})}
    line = f"{what}: " + ", ".join(f"{name} {text}" for name, text in shown.items())
    if items:
        row["per_second"] = {name: items / s for name, s in seconds.items()}
    if others:
        best = min(others, key=lambda s: seconds[s.name])
        row["best"] = best.name
        row["ratios"] = [b / a for a, b in zip(ours.seconds, best.seconds)]
        row["ratio"] = statistics.median(row["ratios"])
        row["cpu_ratio"] = min(row["cpu_seconds"][s.name] for s in others) / row["cpu_seconds"][ours.name]
        line += f"; {row['ratio']:.2f} x {best.name} (by the time on the processor {row['cpu_ratio']:.2f} x)"
    if what.startswith("info_nce"):
        row["extra_bytes"] = extra
        line += "; extra memory " + ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in extra.items())
    print(line, flush=True)
    return row


# --- parts ----------------------------------------------------------------------------------------------------------------------------

def embed(o):
    rows = []
    cases = [("image", 32, "web", False), *(("text", 64, kind, cut) for kind in ("emoji", "web") for cut in (False, True))]
    for precision in ("fp32", "bf16"):
        variants = {"eager": "PyTorch eager", "compile": "PyTorch compile"}
        if precision == "bf16":
            variants |= {"pure": "PyTorch eager, all in bf16", "pure compile": "PyTorch compile, all in bf16"}
        else:
            variants["onnx"] = "ONNX Runtime"
        for tower, batch, captions, cut in cases:
            what = f"embed {batch} pictures" if tower == "image" else f"embed {batch} {captions} captions"
            what += f", {precision}" + (", peers' captions cut to the longest" if cut else "")
            with tempfile.TemporaryDirectory(prefix="parts.") as folder:
                ours = Steady("twinlens", [o.bin / "train_step", "--model", o.model, "--batch-size", str(batch), "--precision", precision,
                                           "--captions", captions, "--threads", str(o.threads), "--no-encode-equal-once", "--save", folder,
                                           "--serve", "--forward", tower], {"OMP_NUM_THREADS": str(o.threads)})
                others = peers(o, variants, part="embed", folder=folder, tower=tower, cut=cut, precision=precision)
                for side in others:
                    if not side.about["apart"] <= TOLERANCE[precision]:
                        sys.exit(f"error: {side.name} gives other features, {side.about['apart']:.1e} apart (allowed "
                                 f"{TOLERANCE[precision]:.0e}); {what}; nothing was timed")
                rows.append(compare(o, what, ours, others, "pictures/s" if tower == "image" else "captions/s", batch))
    return rows


def attention(o):
    variants = {"eager": "PyTorch eager", "separate": "PyTorch eager, q k v apart", "compile": "PyTorch compile"}
    rows = []
    for shape in ATTENTION:
        name = f"large {shape[0]} x {shape[1]}{' causal' if shape[2] else ''}, 12 heads of 64"
        for precision, dtype in (("fp32", "f32"), ("bf16", "bf16")):
            others = peers(o, variants, part="attention", shape=shape, precision=precision)
            ours = Row(o, f"attention/{name}/{dtype}/forward+backward")
            rows.append(compare(o, f"attention forward + backward, {name[6:]}, {precision}", ours, others))
    return rows


def info_nce(o):
    start = lambda name, variant: Fresh(name, lambda: peer(o, name, part="info_nce", variant=variant, pairs=o.pairs))
    others = [start("PyTorch eager", "once"), start("PyTorch eager, two products", "two products"), start("PyTorch compile", "compile")]
    ours = Row(o, f"info_nce/[{o.pairs},{WIDTH}]/f32/forward+backward")
    return [compare(o, f"info_nce forward + backward, {o.pairs} pairs, fp32", ours, others)]


def jpeg_row(o, path, fast):
    ours = Steady("twinlens", [o.bin / "loader_bench", "--picture", path, *["--fast-decode"] * fast], {"OMP_NUM_THREADS": "1"})
    variants = {"torchvision": "Pillow and torchvision", "numpy": "Pillow and numpy"}
    if not fast:
        variants["tensors"] = "torchvision on tensors"
    others = peers(o, variants, part="jpeg", file=path, threads=1, fast=fast)
    mean = ours.steps(1)["mean"]
    for side in others:
        if abs(side.about["mean"] - mean) > (1e-2 if fast else 2e-3):
            sys.exit(f"error: {side.name} makes another tensor, of mean {side.about['mean']:.5f} instead of {mean:.5f}; {path}")
    about = {"bytes": os.path.getsize(path), "mean": mean}
    what = f"jpeg of {about['bytes'] // 1000} kB to a tensor, one thread" + (", at the smallest scale" if fast else "")
    return compare(o, what, ours, others, "pictures/s", 1, about)


def jpeg(o):
    with tempfile.TemporaryDirectory(prefix="parts.") as folder:
        paths = [o.jpeg] if o.jpeg else [f"{folder}/{width}.jpeg" for width in (500, 1600)]
        for path in [] if o.jpeg else paths:
            subprocess.run([o.python, str(HERE / "parts_against_pytorch.py"), "--make-jpeg", path], check=True)
        # (Of the first one no scale leaves enough pixels.)
        return [*(jpeg_row(o, path, fast=False) for path in paths), jpeg_row(o, paths[-1], fast=True)]


PARTS = {"embed": embed, "attention": attention, "info_nce": info_nce, "jpeg": jpeg}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default=",".join(PARTS), help="with commas")
    p.add_argument("--threads", type=int, default=0, help="0: all cores")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="of a side's turn, about")
    p.add_argument("--model", default="ViT-B-32", help="of embed")
    p.add_argument("--pairs", type=int, default=16384, choices=(1024, 4096, 16384), help="of info_nce; PyTorch takes 5 to 7 GB for 16384")
    p.add_argument("--jpeg", default="", help="a file; one is made when not given")
    p.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
    p.add_argument("--preload", default="", help="LD_PRELOAD of PyTorch's side, e.g. libtcmalloc.so.4")
    p.add_argument("--bin", type=Path, default=HERE.parent / "build/release/bin", help="where our programs are")
    p.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    p.add_argument("--make-jpeg", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.worker:
        return worker(o.worker)
    if o.make_jpeg:
        return make_jpeg(o.make_jpeg, int(Path(o.make_jpeg).stem))
    o.threads = o.threads or len(os.sched_getaffinity(0))
    parts = o.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        p.error(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    print(f"{processor()}, {o.threads} threads; {o.rounds} rounds in turns of about {o.seconds} s", flush=True)
    rows = [row for part in parts for row in PARTS[part](o)]
    print(json.dumps({"processor": processor(), "threads": o.threads, "rounds": o.rounds, "model": o.model, "rows": rows}))


if __name__ == "__main__":
    main()
