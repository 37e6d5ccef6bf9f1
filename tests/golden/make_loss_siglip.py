"""SigLIP's loss and open_clip's distillation loss: values and gradients in float64.

Run: python3 tests/golden/make_loss_siglip.py      (writes tests/golden/data/loss_siglip.{safetensors,json}, a second)
"""
import math

import torch
import torch.nn.functional as F
from open_clip.loss import DistillClipLoss, SigLipLoss

import golden

DIM = 8
SCALES = {"10": 10.0, "100": 100.0}


def main():
    rng = golden.seed(7)
    t, attributes = {}, {}
    for n in (1, 2, 5, 33):
        text = F.normalize(golden.randn(rng, n, DIM), dim=-1)
        features = {"image": F.normalize(text + golden.randn(rng, n, DIM, scale=0.2), dim=-1), "text": text}
        teacher = {f"teacher_{k}": F.normalize(v + golden.randn(rng, n, DIM, scale=0.3), dim=-1) for k, v in features.items()}
        for label, scale in SCALES.items():
            log_scale = torch.tensor(math.log(scale), dtype=torch.float32)
            for bias in (-10.0, -1.5):
                def siglip(i, p):
                    return {"loss": SigLipLoss()(i["image"], i["text"], i["log_scale"].exp(), i["log_bias"])}

                case = f"n{n}.scale{label}.bias{bias:g}"
                given = features | {"log_scale": log_scale, "log_bias": torch.tensor(bias)}
                golden.put_case(t, case, siglip, given, {}, {"loss": torch.tensor(1.0)})
                attributes[case] = {"kind": "siglip", "scale": scale}

            def distill(i, p):
                # Only the distillation part: the loss with its contrastive part taken away.
                far = {k: i[k].detach() for k in teacher}
                return {"loss": DistillClipLoss()(i["image"], i["text"], i["log_scale"].exp(), far["teacher_image"],
                                                  far["teacher_text"], torch.tensor(12.0))[1]}

            case = f"n{n}.scale{label}.distill"
            golden.put_case(t, case, distill, features | teacher | {"log_scale": log_scale}, {}, {"loss": torch.tensor(1.0)})
            attributes[case] = {"kind": "distill", "scale": scale, "teacher_scale": 12.0}
    golden.save("loss_siglip", t, attributes)


if __name__ == "__main__":
    main()
