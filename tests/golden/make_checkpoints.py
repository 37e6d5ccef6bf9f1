"""Small files as torch.save and TorchScript write them, and the tensors that they hold as safetensors.

Run: python3 tests/golden/make_checkpoints.py      (writes tests/golden/data/torch_*.pt and torch_files.safetensors, seconds)
"""
from collections import OrderedDict

import torch

import golden


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3) / 7)
        self.register_buffer("count", torch.tensor(5))
        self.names = [1, 2, 3]

    def forward(self, x):
        return x @ self.weight.T + float(self.names[0])


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Inner().half()
        self.blocks = torch.nn.ModuleList([Inner(), Inner()])
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.5))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)[:, :1].expand(-1, 3)
        return x * self.logit_scale


def main():
    rng = golden.seed(5)
    base = golden.randn(rng, 4, 5)
    state = OrderedDict(
        a=base, transposed=base.T, part=base[1:3, 2:], half=golden.randn(rng, 3, 2).half(), bf16=golden.randn(rng, 7).bfloat16(),
        ids=torch.tensor([[1, -2], [1 << 40, 3]]), flags=torch.tensor([True, False, True]), scalar=torch.tensor(4.6052), none=torch.zeros(0, 3),
        bytes=torch.arange(5, dtype=torch.uint8), int32=torch.tensor([-7, 8], dtype=torch.int32),
    )
    state["weight"] = torch.nn.Parameter(golden.randn(rng, 2, 2))
    torch.save(state, golden.DATA / "torch_state.pt")
    torch.save(dict(state), golden.DATA / "torch_protocol4.pt", pickle_protocol=4)
    module = Outer()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module.blocks[0](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    training = {"epoch": 3, "name": "run", "state_dict": {f"module.{n}": x for n, x in module.state_dict().items()}, "optimizer": optimizer.state_dict()}
    torch.save(training, golden.DATA / "torch_training.pt")
    torch.jit.script(module).save(str(golden.DATA / "torch_script.pt"))
    torch.save({"state_dict": torch.nn.Linear(1, 1)}, golden.DATA / "torch_module.pt")  # a pickled class: refused
    t = {f"state.{n}": x.detach() for n, x in state.items()}
    t |= {f"module.{n}": x for n, x in module.state_dict().items()}
    golden.save("torch_files", t)


if __name__ == "__main__":
    main()
