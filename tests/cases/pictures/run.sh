#!/bin/bash
# One picture in other forms (16 bits, 32-bit integers, a palette, turned by EXIF) has one answer.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cat >run.yaml <<'Y'
backbone: {kind: tiny, modality: images, width: 16, layers: 1}
method: {name: lora, rank: 2}
task: {kind: images, data_dir: data}
training: {max_steps: 3, batch_size: 8}
Y
"$PY" - <<'P'
from pathlib import Path
import numpy as np
from PIL import Image
draw = np.random.default_rng(1)
for i in range(16):
    place = Path("data/train") / ("dark", "light")[i % 2]
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(100 * (i % 2), 120 + 100 * (i % 2), (9, 7), dtype=np.uint8)).save(place / f"{i}.png")
grey = draw.integers(0, 256, (9, 7), dtype=np.uint8)
Path("asked").mkdir()
Image.fromarray(grey).save("asked/a.png")
Image.fromarray(grey.astype(np.uint16) * 257).save("asked/b.png")
Image.fromarray(grey.astype(np.int32)).save("asked/c.tif")
palette = Image.fromarray(grey).convert("P")
palette.putpalette([value for value in range(256) for _ in range(3)])
palette.save("asked/d.png")
exif = Image.Exif()
exif[0x0112] = 6
Image.fromarray(np.rot90(grey).copy()).save("asked/e.png", exif=exif)
P
graftlab run run.yaml --out run || wrong "the run ends with $?"
graftlab predict run --input asked --output answers.jsonl || wrong "predict ends with $?"
"$PY" - <<'P' || wrong "the same picture is answered otherwise"
import json
first, *others = [json.loads(line)["probabilities"] for line in open("answers.jsonl")]
assert len(others) == 4
assert all(abs(first[name] - other[name]) < 2e-3 for other in others for name in first), (first, others)
P
right "one answer"
