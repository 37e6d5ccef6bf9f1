"""Pillow's resizes to the byte, open_clip's evaluation preprocessing, and PNG files of many modes with the RGB they mean.

Run: python3 tests/golden/make_resize.py      (writes resize.{safetensors,json} and png_*.png in tests/golden/data, a second)
"""
import io
import struct
import zlib

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image

import golden

SIZES = [(1, 9), (7, 5), (16, 16), (21, 33), (13, 27), (31, 31), (25, 61), (61, 25), (3, 90), (47, 45), (52, 39), (89, 83)]  # (w, h)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
RESIZES = [  # (image, operation, filter, (w, h) of the result, box left, top, right, bottom)
    *[(i, "resize", "bicubic", (16, 16), None) for i in range(12)],
    *[(i, "resize", "bilinear", (15, 11), None) for i in (1, 3, 5, 8, 9, 11)],
    (1, "resize", "bicubic", (33, 29), None), (0, "resize", "bicubic", (5, 9), None), (3, "resize", "bicubic", (21, 12), None),
    (3, "resize", "bicubic", (9, 33), None), (5, "resize", "bicubic", (32, 30), None), (9, "resize", "bicubic", (40, 6), None),
    (11, "resize", "bicubic", (32, 32), None), (11, "resize", "bicubic", (1, 1), None), (11, "resize", "bicubic", (7, 23), None),
    (2, "resize", "bilinear", (24, 24), None), (6, "resize", "bilinear", (24, 7), None), (1, "resize", "bilinear", (21, 15), None),
    (9, "box", "bicubic", (16, 16), (3, 5, 40, 42)), (10, "box", "bicubic", (16, 16), (0, 0, 52, 39)), (11, "box", "bicubic", (16, 16), (20, 11, 29, 20)),
    (11, "box", "bicubic", (20, 14), (1.5, 2.25, 70.75, 80)), (5, "box", "bilinear", (12, 12), (4, 4, 27, 30)), (4, "box", "bicubic", (13, 8), (0, 3, 13, 19)),
    (9, "crop", "bicubic", (16, 16), (3, 5, 40, 42)), (11, "crop", "bicubic", (16, 16), (20, 11, 29, 20)), (5, "crop", "bilinear", (12, 12), (4, 4, 27, 30)),
    (10, "crop", "bicubic", (16, 16), (7, 2, 48, 37)),
]
PREPROCESS = [(3, 16), (8, 15), (9, 16), (5, 31)]  # (image, image_size): up and down, odd crops, short edge already right


def picture(rng, w, h):
    """Half smooth, half noise, with hard black and white patches, so that overshoot is clipped on both sides."""
    y, x = np.mgrid[0:h, 0:w]
    smooth = np.stack([128 + 120 * np.sin(x * a + y * b) for a, b in rng.uniform(-0.5, 0.5, (3, 2))], axis=-1)
    out = np.where((x + y)[..., None] % 16 < 8, smooth, rng.integers(0, 256, (h, w, 3)))
    patches = rng.integers(0, 12, ((h + 3) // 4, (w + 3) // 4)).repeat(4, 0).repeat(4, 1)[:h, :w]
    out[patches == 0], out[patches == 1] = 0, 255
    return out.astype(np.uint8)


def write_png(depth, colour, w, rows, *chunks):
    """A PNG by hand, for what Pillow cannot write: `rows` are the packed bytes of each row, filter 0."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", w, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*c) for c in chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def pngs(rng):
    w, h = 13, 10
    rgb, alpha = picture(rng, w, h), rng.integers(0, 256, (h, w, 1)).astype(np.uint8)
    alpha[0], alpha[1] = 0, 255
    grey16 = rng.integers(0, 65536, (h, w, 4)).astype(np.uint16)
    rows16 = lambda channels: [row[:, :channels].astype(">u2").tobytes() for row in grey16]
    as_pillow = lambda array, mode: Image.fromarray(array).convert(mode)

    def encoded(image, **more):
        out = io.BytesIO()
        image.save(out, "PNG", **more)
        return out.getvalue()

    rgba = Image.fromarray(np.concatenate([rgb, alpha], axis=-1))
    palette = as_pillow(rgb, "RGB").quantize(12)
    return {
        "rgb": encoded(Image.fromarray(rgb)),
        "rgba": encoded(rgba),
        "la": encoded(rgba.convert("LA")),
        "l": encoded(as_pillow(rgb, "L")),
        "1": encoded(as_pillow(rgb, "1")),
        "p": encoded(palette, bits=8),
        "p4": encoded(palette, bits=4),
        "p_alpha": encoded(palette, bits=8, transparency=bytes([0, 255, 128, 7, 200, 31])),
        "rgb_key": write_png(8, 2, w, [row.tobytes() for row in rgb], (b"tRNS", struct.pack(">HHH", *map(int, rgb[4, 4])))),
        "l2": write_png(2, 0, 12, [rng.integers(0, 256, 3).astype(np.uint8).tobytes() for _ in range(h)]),
        "l16": write_png(16, 0, w, rows16(1)),
        "la16": write_png(16, 4, w, rows16(2)),
        "rgb16": write_png(16, 2, w, rows16(3)),
        "rgba16": write_png(16, 6, w, rows16(4)),
    }


def meaning(image):
    """RGB by Pillow: what has any transparency is composited on white, the rest is converted."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"), "composite on white"
    return image.convert("RGB"), "convert"


def main():
    rng = np.random.default_rng(8)
    tensor = lambda image: torch.from_numpy(np.array(image))
    images = [Image.fromarray(picture(rng, w, h)) for w, h in SIZES]
    t = {f"image.{i}": tensor(image) for i, image in enumerate(images)}
    attributes = {"resize": [], "preprocess": [], "png": {}}
    for k, (i, op, name, size, box) in enumerate(RESIZES):
        if op == "crop":
            out = images[i].crop(box).resize(size, FILTERS[name])
        else:
            out = images[i].resize(size, FILTERS[name], box=box)
        t[f"resize.{k}"] = tensor(out)
        attributes["resize"].append({"image": i, "op": op, "filter": name, "size": size, "box": box})
    for k, (i, size) in enumerate(PREPROCESS):
        t[f"preprocess.{k}"] = image_transform(size, is_train=False)(images[i])
        attributes["preprocess"].append({"image": i, "image_size": size})
    for name, data in pngs(rng).items():
        (golden.DATA / f"png_{name}.png").write_bytes(data)
        image = Image.open(io.BytesIO(data))
        image.load()
        rgb, how = meaning(image)
        t[f"png.{name}"] = tensor(rgb)
        attributes["png"][name] = {"mode": image.mode, "rgb": how}
        if image.mode == "I;16":  # Pillow cuts these at 255; the useful meaning is the high byte
            t[f"png.{name}.high_byte"] = (tensor(image).to(torch.int32) >> 8).to(torch.uint8)[..., None].expand(-1, -1, 3)
    golden.save("resize", t, attributes)


if __name__ == "__main__":
    main()
