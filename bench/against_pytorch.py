#!/usr/bin/env python3
"""The same training step in twinlens and in PyTorch, in turns, in one run.

    bench/against_pytorch.py --model ViT-B-32 --batch-size 32 --precision bf16 --captions emoji
    bench/against_pytorch.py --device cuda --model ViT-B-32 --batch-size 1024 --precision bf16 --captions web

Both sides start from one set of weights and one batch, which bin/train_step writes. First they take three steps each, and their losses must agree; then
rounds of steps are timed in turns, each side in a process of its own that sleeps while another works. PyTorch is taken at the best of its variants: eager,
torch.compile (and with CUDA graphs on a card); its memory allocator is told to keep what it has. It computes what PyTorch programs compute:
captions padded to 77 tokens, whole last blocks. --dense takes twinlens' exact cuts away as well; --lean is twinlens in the least memory.

Needs torch, safetensors and numpy (safetensors is read by hand when it is missing).
"""
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEARNING_RATE = 1e-5
# How far the losses of the first steps may lie apart, relative: rounding of the precision, which the first steps of AdamW magnify.
TOLERANCE = {"fp32": 2e-4, "tf32": 5e-3, "bf16": 2e-2}
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "67108864",
          "THP_MEM_ALLOC_ENABLE": "1"}  # pages of 2 MiB, as our blocks have


# --- PyTorch's side: a process that takes steps on demand ----------------------------------------------------------------------------

def read_safetensors(path):
    """Without the safetensors package, which need not be there."""
    import torch
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    types = {"F32": torch.float32, "I64": torch.int64, "U8": torch.uint8, "BF16": torch.bfloat16, "F16": torch.float16}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + x for x in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=types[entry["dtype"]]) if end > begin else torch.empty(0)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def read_model(folder):
    """What train_step --save wrote: the model on the CPU, pixels as it wants them (normalised), tokens."""
    import torch
    sys.path.insert(0, str(HERE))
    from pytorch_clip import Clip, ModifiedResNet

    config = json.loads((folder / "open_clip_config.json").read_text())
    model = Clip(config["model_cfg"])
    weights = read_safetensors(folder / "open_clip_model.safetensors")
    known = model.state_dict()
    assert {n for n in known if not n.endswith("num_batches_tracked")} <= set(weights), set(known) - set(weights)
    model.load_state_dict(weights, strict=False)
    batch = read_safetensors(folder / "batch.safetensors")
    mean, std = (torch.tensor(config["preprocess_cfg"][k]) for k in ("mean", "std"))
    pixels = ((batch["pixels"].float() / 255 - mean) / std).permute(0, 3, 1, 2)  # NCHW in channels_last layout
    if isinstance(model.visual, ModifiedResNet):
        model.visual.to(memory_format=torch.channels_last)
    else:
        pixels = pixels.contiguous()
    return model, pixels, batch["tokens"]


def worker(folder, variant, precision, device_name, threads):
    import time

    import torch
    device = torch.device(device_name)
    cuda = device.type == "cuda"
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    model, pixels, tokens = read_model(folder)
    from pytorch_clip import adamw
    model.train().to(device)
    pixels, tokens = pixels.to(device), tokens.to(device)
    optimizer = adamw(model, LEARNING_RATE, device)
    loss_of = model
    if variant != "eager":
        loss_of = torch.compile(model, mode=variant.partition(":")[2] or "default")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(pixels, tokens)
        loss.backward()
        optimizer.step()
        model.clamp()
        return loss.detach().clone() if "reduce-overhead" in variant else loss.detach()

    wait = torch.cuda.synchronize if cuda else lambda: None
    print(json.dumps({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads(),
                      "device": torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability()}), flush=True)
    for line in sys.stdin:
        losses, seconds = [], []
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        wait()
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            begin = time.perf_counter()
            losses.append(step())
            seconds.append(time.perf_counter() - begin)
        wait()
        whole = (time.perf_counter() - start) / max(1, int(line))
        memory = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        cpu = (time.process_time() - cpu_start) / torch.get_num_threads() / max(1, int(line))
        print(json.dumps({"seconds": whole if cuda else statistics.median(seconds), "cpu_seconds": cpu, "losses": [x.item() for x in losses],
                          "memory": memory}), flush=True)


# --- the comparison --------------------------------------------------------------------------------------------------------------------

class Side:
    """A child process that answers a number of steps with a line of JSON."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        self.about = self.read()
        self.seconds, self.cpu_seconds = [], []
        self.memory = 0

    def read(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name} ended with {self.process.wait()}; see above")
            if line.startswith("{"):
                return json.loads(line)

    def steps(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        answer = self.read()
        self.memory = max(self.memory, answer.get("memory", answer.get("peak_rss_bytes", 0)))
        return answer

    def close(self):
        self.process.stdin.close()
        report = self.process.stdout.read()
        self.process.wait()
        return report


def compare_losses(ours, theirs, name, tolerance):
    far = max(abs(a - b) / max(1e-6, abs(b)) for a, b in zip(ours, theirs))
    print(f"losses of the first steps: twinlens {' '.join(f'{x:.6f}' for x in ours)}; {name} {' '.join(f'{x:.6f}' for x in theirs)}; "
          f"apart by {far:.1e} (allowed {tolerance:.0e})")
    if not far <= tolerance:
        sys.exit(f"error: the two sides do not compute the same loss; {name}; nothing was timed")


def processor():
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor()


def start_pytorch(variant, folder, o, threads):
    command = [o.python, str(HERE / "against_pytorch.py"), "--worker", str(folder), "--variant", variant, "--precision", o.precision,
               "--device", o.device, "--threads", str(threads)]
    environment = {"OMP_NUM_THREADS": str(threads), **MALLOC} if o.device == "cpu" else {}
    if o.preload:
        environment["LD_PRELOAD"] = o.preload
    try:
        return Side(f"PyTorch {variant}", command, environment)
    except RuntimeError as error:
        print(f"PyTorch {variant} does not start: {error}")
        return None


def compare(o):
    threads = o.threads or len(os.sched_getaffinity(0))
    folder = Path(tempfile.mkdtemp(prefix="against_pytorch."))
    program = [o.train_step, "--model", o.model, "--batch-size", str(o.batch_size), "--precision", o.precision, "--device", o.device,
               "--captions", o.captions, "--seed", str(o.seed), "--lr", str(LEARNING_RATE), "--threads", str(threads), "--serve",
               "--save", str(folder)]
    if o.lean:
        program += ["--update-in-backward", "--recompute-cheap", "--no-weight-copies"]
    if o.graphs:
        program += ["--async-step", "--cuda-graphs"]
    if o.dense:
        program += ["--no-pack-captions", "--no-prune-last-block", "--no-encode-equal-once"]
    ours = Side("twinlens", program, {"OMP_NUM_THREADS": str(threads)})
    first = ours.steps(3)["losses"]
    variants = o.variants.split(",") if o.variants else ["eager", "compile"] + (["compile:reduce-overhead"] if o.device != "cpu" else [])
    others = []
    for variant in variants:
        side = start_pytorch(variant, folder, o, threads)
        if side is None:
            continue
        try:
            losses = side.steps(3)["losses"]
        except RuntimeError as error:
            print(f"{side.name} fails: {error}")
            continue
        compare_losses(first, losses, side.name, TOLERANCE[o.precision])
        others.append(side)
    if not others:
        sys.exit("error: no variant of PyTorch runs; --variants; see above")
    about = others[0].about
    print(f"{processor()}, {threads} threads; PyTorch {about['torch']} ({about['device']}); {o.model}, batch {o.batch_size}, {o.precision}, "
          f"captions {o.captions}{', no exact cuts' if o.dense else ''}; {o.rounds} rounds of {o.steps} steps in turns")
    for side in [ours, *others] if o.warmup > 0 else []:
        side.steps(o.warmup)
    for r in range(o.rounds):
        for side in [ours, *others]:
            answer = side.steps(o.steps)
            side.seconds.append(answer["seconds"])
            side.cpu_seconds.append(answer["cpu_seconds"])
        print(f"round {r + 1}: " + "  ".join(f"{s.name} {o.batch_size / s.seconds[-1]:.2f}" for s in [ours, *others]) + "  pairs/s",
              flush=True)
    best = min(others, key=lambda s: statistics.median(s.seconds))
    ratios = [b / a for a, b in zip(ours.seconds, best.seconds)]
    cpu_ratios = [b / a for a, b in zip(ours.cpu_seconds, min(others, key=lambda s: statistics.median(s.cpu_seconds)).cpu_seconds)]
    report = json.loads(ours.close())
    for side in others:
        side.close()
    memory = report["peak_memory_bytes"] if o.device != "cpu" else ours.memory
    result = {"model": o.model, "batch_size": o.batch_size, "precision": o.precision, "device": o.device, "captions": o.captions,
              "exact_cuts": not o.dense, "lean": o.lean, "torch": about["torch"], "torch_best": best.name, "threads": threads,
              "instruction_set": report["instruction_set"],
              "twinlens_pairs_per_second": o.batch_size / statistics.median(ours.seconds),
              "torch_pairs_per_second": {s.name: o.batch_size / statistics.median(s.seconds) for s in others},
              "ratio": statistics.median(ratios), "ratios": ratios, "cpu_ratio": statistics.median(cpu_ratios), "cpu_ratios": cpu_ratios, "percent_of_peak": report["percent_of_peak"],
              "memory_ratio": memory / best.memory, "memory_bytes": [memory, best.memory], "losses": first}
    print(f"ratios to {best.name}: {' '.join(f'{x:.2f}' for x in ratios)}; median {result['ratio']:.2f}; by the time on the processor "
          f"{result['cpu_ratio']:.2f}; twinlens at {report['percent_of_peak'] or 0:.0f} % of its peak; memory "
          f"{result['memory_ratio']:.2f} x ({memory / 1e9:.2f} against {best.memory / 1e9:.2f} GB)")
    print(json.dumps(result))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="ViT-B-32")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--precision", default="fp32", choices=sorted(TOLERANCE))
    p.add_argument("--device", default="cpu")
    p.add_argument("--captions", default="emoji", help="emoji, web, dense or a text file")
    p.add_argument("--dense", action="store_true", help="no exact cuts on our side either")
    p.add_argument("--lean", action="store_true", help="our side with the flags that save memory: the same numbers, a little slower in bf16")
    p.add_argument("--graphs", action="store_true", help="on a card: our side's steps recorded and launched as CUDA graphs")
    p.add_argument("--steps", type=int, default=3, help="of a round")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--threads", type=int, default=0, help="0: all cores")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--variants", default="", help="of PyTorch, with commas: eager, compile, compile:MODE")
    p.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
    p.add_argument("--preload", default="", help="LD_PRELOAD of PyTorch's side, e.g. libtcmalloc.so.4")
    p.add_argument("--train-step", default=str(HERE.parent / "build/release/bin/train_step"))
    p.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--variant", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.worker:
        worker(o.worker, o.variant, o.precision, o.device, o.threads)
    else:
        compare(o)


if __name__ == "__main__":
    main()
