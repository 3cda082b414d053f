# What all cases share: an empty folder to work in, and words for how a case ends. `graftlab` and its `python` are
# those on PATH, or GRAFTLAB and PYTHON. A case makes its inputs, and ends with 0 where graftlab is right.
set -u
GL="${GRAFTLAB:-graftlab}"; PY="${PYTHON:-python}"
CASES="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 COLUMNS=200
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
right() { echo "right: $*"; exit 0; }
wrong() { echo "wrong: $*"; tail -5 said.txt 2>/dev/null; exit 1; }
graftlab() { "$GL" "$@" >out.txt 2>err.txt; local rc=$?; cat out.txt err.txt >said.txt; return $rc; }
clean() { ! grep -q "Traceback\|This is a bug" said.txt; }
refused() { [ "$1" = "$2" ] && clean && right "refused: $(tail -1 err.txt)"; wrong "exit $1, not $2"; }
tiny() { printf 'backbone: {kind: tiny, width: 16, layers: 1, max_length: 96}\nmethod: {name: lora, rank: 2}\n%s\n' "$1" >run.yaml; }
