"""Models of twinlens in open_clip and transformers, and theirs in twinlens: the same embeddings, by way of files.

Run by ctest with a Python that may lack the packages: then a line "skipped: ..." says what is missing. Usage: opens_elsewhere.py TWINLENS
"""
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

missing = []
for name in ("numpy", "torch", "PIL", "safetensors", "open_clip", "transformers"):
    try:
        importlib.import_module(name)
    except Exception as e:  # a package that is there and broken is as good as missing, and is named
        missing.append(f"{name} ({type(e).__name__}: {e})")
if missing:
    print("skipped: these Python packages cannot be imported: " + "; ".join(missing))
    sys.exit(0)

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file

TWINLENS = sys.argv[1]
SPIECE = Path(__file__).parent.parent / "golden/data/tokenizers/sentencepiece/spiece.model"
TOLERANCE = 1e-5
CAPTIONS = ["a red square", "the sky at night, seen from a hill", "two dogs!", "x"]
SIZE = 32
VISION = {"image_size": SIZE, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MODELS = {
    "vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "vit-quickgelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "layer-scale": {"embed_dim": 24, "vision_cfg": VISION | {"ls_init_value": 0.1}, "text_cfg": TEXT | {"ls_init_value": 0.1}},
    "averaged": {"embed_dim": 24, "vision_cfg": VISION | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, "text_cfg": TEXT},
    "resnet": {"embed_dim": 24, "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}, "text_cfg": TEXT},
    # Heads of 64, which is what OpenAI's code takes of any model.
    "openai-vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION | {"head_width": 64}, "text_cfg": TEXT | {"width": 64, "heads": 1}},
    "openai-resnet": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
                      "text_cfg": TEXT | {"width": 64, "heads": 1}},
}
failures = []


def twinlens(*arguments, stdin=""):
    result = subprocess.run([TWINLENS, *map(str, arguments)], input=stdin, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"twinlens {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def embed(model, folder, pictures):
    """(images, texts) as twinlens embeds them."""
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    twinlens("embed", "--model", model, "--images", *pictures, "--output", folder / "images.safetensors")
    twinlens("embed", "--model", model, "--texts", folder / "captions.txt", "--output", folder / "texts.safetensors")
    return [load_file(folder / f"{kind}.safetensors")["embeddings"] for kind in ("images", "texts")]


def compare(what, mine, theirs):
    for kind, a, b in zip(("images", "texts"), mine, theirs):
        distance = float((a - F.normalize(b.detach().float(), dim=-1)).norm(dim=1).max())
        print(f"{what}, {kind}: {distance:.1e}")
        if not distance <= TOLERANCE:
            failures.append(f"{what}, {kind}: {distance}")


def in_open_clip(model_folder, pictures):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    model.eval()
    with torch.no_grad():
        images = torch.stack([preprocess(Image.open(p)) for p in pictures])
        return model.encode_image(images), model.encode_text(tokenizer(CAPTIONS))


def features(out):
    return out if torch.is_tensor(out) else out.pooler_output


def in_transformers(model_folder, pictures):
    model = transformers.CLIPModel.from_pretrained(model_folder).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(model_folder)
    tokens = open_clip.SimpleTokenizer()(CAPTIONS)
    with torch.no_grad():
        pixels = processor(images=[Image.open(p) for p in pictures], return_tensors="pt")["pixel_values"]
        return features(model.get_image_features(pixel_values=pixels)), features(model.get_text_features(input_ids=tokens))


def same_tensors(what, a, b):
    same_dicts(what, load_file(a), load_file(b))


def same_dicts(what, x, y):
    equal = x.keys() == y.keys() and all(torch.equal(x[n], y[n]) and x[n].dtype == y[n].dtype for n in x)
    print(f"{what}: {'equal' if equal else 'different'} bits")
    if not equal:
        failures.append(what)


def make_pictures(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    out = []
    for i in range(8):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(coarse.repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)).save(path)
        path.with_suffix(".txt").write_text(f"picture {CAPTIONS[i % len(CAPTIONS)]} {i}\n")
        out.append(path)
    return out


def trained_here(root, pictures):
    """Trains each model for a few steps; it must open elsewhere."""
    for name, config in MODELS.items():
        here = root / name
        here.mkdir()
        (here / "config.json").write_text(json.dumps(config))
        twinlens("train", "--train-data", pictures[0].parent, "--model", here / "config.json", "--batch-size", 4, "--epochs", 3, "--lr", "1e-3",
                 "--warmup", 1, "--logs", here, "--name", "run")
        model = here / "run" / "model"
        mine = embed(model, here, pictures)
        compare(f"{name} in open_clip", mine, in_open_clip(model, pictures))
        if name.startswith("vit"):
            twinlens("convert", model, "--to", "hf", "--output", here / "hf")
            compare(f"{name} in transformers", mine, in_transformers(here / "hf", pictures))
            twinlens("convert", here / "hf", "--to", "open_clip", "--output", here / "back")
            same_tensors(f"{name} to transformers' layout and back", model / "open_clip_model.safetensors", here / "back" / "open_clip_model.safetensors")
        if name in ("vit-quickgelu", "resnet"):
            twinlens("convert", model, "--to", "openai", "--output", here / "openai")
            compare(f"{name} as OpenAI's", mine, embed(here / "openai", here, pictures))
        if name.startswith("openai"):
            as_openai_pt(name, here, model, mine, pictures)


def as_openai_pt(name, here, model, mine, pictures):
    """The .pt that OpenAI's own code takes: a state dict for torch.load, from which open_clip builds OpenAI's model."""
    twinlens("convert", model, "--to", "openai", "--format", "pt", "--output", here / "pt")
    loaded = torch.load(here / "pt" / "model.pt", weights_only=True, map_location="cpu")
    twinlens("convert", model, "--to", "openai", "--output", here / "safetensors")
    same_dicts(f"{name} as OpenAI's .pt, in torch.load", loaded, load_file(here / "safetensors" / "model.safetensors"))
    theirs = open_clip.load_openai_model(str(here / "pt" / "model.pt"), precision="fp32", device="cpu").eval()
    # Building rounds the weights to f16, which OpenAI's were anyway; here they come again as they are.
    theirs.load_state_dict({n: x for n, x in loaded.items() if n not in ("input_resolution", "context_length", "vocab_size")})
    preprocess = open_clip.image_transform(SIZE, is_train=False)
    with torch.no_grad():
        images = torch.stack([preprocess(Image.open(p)) for p in pictures])
        compare(f"{name} as OpenAI's .pt, in open_clip", mine, (theirs.encode_image(images), theirs.encode_text(open_clip.SimpleTokenizer()(CAPTIONS))))
    twinlens("convert", here / "pt", "--to", "open_clip", "--output", here / "pt-back")
    same_tensors(f"{name} to OpenAI's .pt and back", model / "open_clip_model.safetensors", here / "pt-back" / "open_clip_model.safetensors")


def made_there(root, pictures):
    """Models made by open_clip and transformers, saved by them, read here."""
    torch.manual_seed(0)
    for name in ("vit", "resnet"):
        here = root / f"open_clip-{name}"
        here.mkdir()
        model = open_clip.CLIP(**MODELS[name]).eval()
        torch.save({"epoch": 1, "state_dict": {f"module.{n}": x for n, x in model.state_dict().items()}}, here / "epoch_1.pt")
        (here / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODELS[name], "preprocess_cfg": {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}}))
        preprocess = open_clip.image_transform(SIZE, is_train=False)
        with torch.no_grad():
            theirs = model.encode_image(torch.stack([preprocess(Image.open(p)) for p in pictures])), model.encode_text(open_clip.SimpleTokenizer()(CAPTIONS))
        compare(f"open_clip's {name}, .pt of its training", embed(here / "epoch_1.pt", here, pictures), theirs)
    for act in ("quick_gelu", "gelu"):
        here = root / f"transformers-{act}"
        config = transformers.CLIPConfig(
            projection_dim=24,
            text_config={"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": act, "projection_dim": 24},
            vision_config={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIZE,
                           "patch_size": 8, "hidden_act": act, "projection_dim": 24})
        transformers.CLIPModel(config).save_pretrained(here)
        transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(here)
        compare(f"transformers' CLIPModel, {act}", embed(here, here, pictures), in_transformers(here, pictures))


def siglip(root, pictures):
    """A SigLIP of transformers, read here, trained here for a few steps, and opened there again."""
    here = root / "siglip"
    here.mkdir()
    towers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = transformers.SiglipModel(transformers.SiglipConfig(
        text_config=towers | {"vocab_size": 1000, "max_position_embeddings": 16, "projection_size": 64},
        vision_config=towers | {"image_size": SIZE, "patch_size": 8}))
    made.save_pretrained(here)
    shutil.copy(SPIECE, here)
    processor = transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE})

    def there(folder):
        model = transformers.SiglipModel.from_pretrained(folder).eval()
        lines = json.loads(twinlens("tokenize", "--model", here, "--json", stdin="\n".join(CAPTIONS)))
        ids = torch.tensor([line + [1] * (16 - len(line)) for line in lines])  # padded with 1 to the context length
        with torch.no_grad():
            pixels = processor(images=[Image.open(p) for p in pictures], return_tensors="pt")["pixel_values"]
            return features(model.get_image_features(pixel_values=pixels)), features(model.get_text_features(input_ids=ids))

    compare("transformers' SiglipModel", embed(here, here, pictures), there(here))
    twinlens("train", "--train-data", pictures[0].parent, "--pretrained", here, "--siglip", "--batch-size", 4, "--epochs", 3, "--lr", "1e-3",
             "--warmup", 1, "--logs", here, "--name", "run")
    model = here / "run" / "model"
    twinlens("convert", model, "--to", "hf", "--output", here / "hf")
    mine = embed(model, here, pictures)
    compare("a SigLIP trained here, in transformers", mine, there(here / "hf"))
    before = load_file(here / "model.safetensors")
    after = load_file(here / "hf" / "model.safetensors")
    unmoved = [n for n in before if torch.equal(before[n], after[n])]
    if before.keys() != after.keys() or unmoved:
        failures.append(f"a SigLIP trained here: names differ, or these did not move: {unmoved}")


def main():
    print(f"open_clip {open_clip.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pictures = make_pictures(root / "data")
        trained_here(root, pictures)
        made_there(root, pictures)
        siglip(root, pictures)
    if failures:
        raise SystemExit("FAILED:\n" + "\n".join(failures))
    print("all equal")


if __name__ == "__main__":
    main()
