#!/usr/bin/env bash
# Everything that only a GPU can show, in order of worth, each step under its own limit, under 8 minutes in all:
#   scripts/gpu_checks.sh [--photos FOLDER] [--out FOLDER] [--only STEP,...] [--cpu]
# Ends with a table and FOLDER/gpu_checks.json. Without a GPU it says what it would do; --cpu then runs the steps that a
# CPU can do as well, as a rehearsal. The last step, training, gets what is left, five minutes at most.
set -uo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PHOTOS="" OUT="runs/gpu_checks" ONLY="" CPU=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --photos) PHOTOS="$2"; shift 2 ;;
    --out) OUT="$2"; shift 2 ;;
    --only) ONLY=",$2,"; shift 2 ;;
    --cpu) CPU=1; shift ;;
    *) sed -n '2,5p' "${BASH_SOURCE[0]}" | cut -c 3-; [[ "$1" == -h || "$1" == --help ]]; exit $? ;;
  esac
done
[[ -z "${VIRTUAL_ENV:-}" && -f scripts/env.sh ]] && source scripts/env.sh
mkdir -p "$OUT"
GPU="$(python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")' 2>/dev/null)"
RESULTS="$OUT/results.tsv"
: >"$RESULTS"

# Photographs: the folder given, or scikit-image's, which come with the training packages.
if [[ -z "$PHOTOS" ]]; then
  PHOTOS="$OUT/photos"
  python - "$PHOTOS" <<'PY'
import sys
from pathlib import Path
from PIL import Image
from skimage import data
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name in ("astronaut", "coffee", "chelsea", "rocket"):
    picture = Image.fromarray(getattr(data, name)())
    for i in range(8):  # rotated copies: enough for batches
        picture.rotate(5 * i, expand=False).save(folder / f"{name}_{i}.jpg")
PY
fi
LABELS="$OUT/labels.json"
DEVICE=cuda; [[ -z "$GPU" ]] && DEVICE=cpu

# NAME SECONDS WHERE(gpu|any) WHAT COMMAND
step() {
  local name="$1" limit="$2" where="$3" what="$4" command="$5" began status log="$OUT/$1.log"
  [[ -n "$ONLY" && "$ONLY" != *",$name,"* ]] && return
  if [[ -z "$GPU" && ( "$CPU" == 0 || "$where" == gpu ) ]]; then
    printf '%-16s would run for at most %3s s: %s\n    %s\n' "$name" "$limit" "$what" "$command"
    printf '%s\t%s\t%s\t%s\n' "$name" "not run: no GPU" 0 "$what" >>"$RESULTS"
    return
  fi
  printf '%-16s %s ... ' "$name" "$what"
  began=$SECONDS
  timeout --signal=INT --kill-after=10 "$limit" bash -c "$command" >"$log" 2>&1
  status=$?
  case $status in 0) state=passed ;; 124|137) state="stopped at its limit" ;; *) state="failed ($status)" ;; esac
  printf '%s after %d s\n' "$state" $((SECONDS - began))
  [[ $status -eq 0 ]] || tail -n 3 "$log" | sed 's/^/    /'
  printf '%s\t%s\t%d\t%s\n' "$name" "$state" $((SECONDS - began)) "$what" >>"$RESULTS"
}

[[ -n "$GPU" ]] && echo "GPU: $GPU" || echo "no GPU that torch can use"
BENCH="python benchmarks/training.py"
step gpu_tests 75 gpu "tests that need a GPU" "python -m pytest -q -n 0 -m gpu tests"
step features 25 any "features: images a second of a ViT-B/8" "python benchmarks/features.py"
step discovery 25 any "pseudo-labels: images a second, all workers" \
  "rm -rf '$LABELS'* && time python train/pseudo_label.py --images '$PHOTOS' --out '$LABELS' --features handcrafted --set size=320 --device $DEVICE"
step training_parts 15 any "parts of a training step: plainly, and as they are done" "$BENCH --parts"
step training_step 40 any "a step of training: plainly, as it is done, torchvision's; and its memory" \
  "$BENCH --images '$PHOTOS' --annotations '$LABELS' --size 320 --batch 4 --steps 4 --rounds 1 --precision bf16 --rows plain cascade torchvision"
step onnxruntime 15 gpu "ONNX Runtime's CUDA provider on the shipped model" \
  "python -c \"
import onnxruntime, time, numpy as np
assert 'CUDAExecutionProvider' in onnxruntime.get_available_providers(), 'install onnxruntime-gpu'
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.model_names import resolve_model
backend = open_backend(resolve_model('default'), 'onnxruntime-cuda'); backend.warm_up()
images = np.full((backend.info.batch, *backend.info.input_size, 3), 127, np.uint8)
start = time.perf_counter()
for _ in range(50): backend.infer(images)
print('ms an image', (time.perf_counter() - start) * 20)\""
MACHINE=gpu; [[ -z "$GPU" ]] && MACHINE=cpu
left=$((460 - SECONDS)); ((left > 300)) && left=300
# Ended by its limit it has passed: Ctrl-C keeps the iteration.
step recipe "$left" any "training by the recipe of the default model, its rate and loss" \
  "timeout --signal=INT $((left - 15)) python train/detector.py --config config/recipes/default_model.yaml --config config/recipes/default_model_$MACHINE.yaml --data.images '$PHOTOS' --data.annotations '$LABELS' --run.output '$OUT/run' --run.log_every 10; status=\$?; [[ \$status == 0 || \$status == 124 || \$status == 130 ]]"

python - "$RESULTS" "$OUT" "${GPU:-none}" <<'PY'
import json
import re
import sys
from pathlib import Path

rows = [line.split("\t") for line in Path(sys.argv[1]).read_text().splitlines()]
out = Path(sys.argv[2])
steps = []
for name, state, seconds, what in rows:
    log = out / f"{name}.log"
    text = log.read_text(errors="replace") if log.exists() and not state.startswith("not run") else ""
    found = [line.strip() for line in re.split(r"[\r\n]", text) if re.search(r"\d", line)]
    steps.append({"step": name, "what": what, "state": state, "seconds": int(seconds), "last_lines": found[-6:]})
(out / "gpu_checks.json").write_text(json.dumps({"gpu": sys.argv[3], "steps": steps}, indent=1) + "\n")
print(f"\n{'step':16}{'state':24}{'s':>5}  {'last line with a number'}")
for step in steps:
    print(f"{step['step']:16}{step['state']:24}{step['seconds']:5}  {(step['last_lines'] or [''])[-1][:90]}")
print(f"{out / 'gpu_checks.json'}")
sys.exit(any(step["state"].startswith("failed") for step in steps))
PY
