#!/bin/bash
# Pictures of floats beyond 0 to 1 are found when rows are counted, and `skip_bad` leaves them out.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cat >run.yaml <<'Y'
backbone: {kind: tiny, modality: images, width: 16, layers: 1}
method: {name: lora, rank: 2}
task: {kind: images, data_dir: data}
training: {max_steps: 2, batch_size: 4}
Y
"$PY" - <<'P'
from pathlib import Path
import numpy as np
from PIL import Image
for i in range(16):
    place = Path("data/train") / ("dark", "light")[i % 2]
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((5, 5), 40 + 10 * i, np.uint8)).save(place / f"{i}.png")
Image.fromarray(np.full((5, 5), 1e6, np.float32)).save("data/train/dark/measured.tif")
P
graftlab prepare run.yaml; rc=$?; [ $rc = 3 ] && clean || wrong "prepare ends with $rc, not 3"
graftlab run run.yaml --set task.skip_bad=1 --out run || wrong "it is not left out"
right "refused, and left out where that is asked"
