"""Parameter counts (exact) and forward GFLOPs (2 per multiply-add, two decimals) of open_clip's models, by name.

The counts are open_clip's own, of models built without memory on the meta device; the GFLOPs are its docs/model_profile.csv, which is
not in the package: give its path.

Run: python3 tests/golden/make_model_profile.py model_profile.csv      (writes tests/golden/data/model_profile.json, a minute)
"""
import csv
import json
import sys

import open_clip
import torch

import golden

SKIP = ("worldwide", "ViTamin", "naflex")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    out = {}
    for name in sorted(open_clip.list_models()):
        if not name.startswith(("ViT-", "RN")) or any(s in name for s in SKIP):
            continue
        if "i18n" in name and "SO400M" in name:  # no text projection
            continue
        with torch.device("meta"):
            model = open_clip.create_model(name, pretrained=None, device="meta")
        image = sum(p.numel() for p in model.visual.parameters())
        total = sum(p.numel() for p in model.parameters())
        scalars = sum(p.numel() for n, p in model.named_parameters() if n.startswith("logit_"))
        out[name] = {"image_parameters": image, "text_parameters": total - image - scalars}
        if name in rows:
            out[name] |= {k: float(rows[name][k]) for k in ("image_gflops", "text_gflops")}
        print(name, json.dumps(out[name]))
    golden.save_json("model_profile", out, depth=1)


if __name__ == "__main__":
    main()
