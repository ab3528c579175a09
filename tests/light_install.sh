#!/usr/bin/env bash
# Installs the wheel without FiftyOne into a fresh environment, and audits there: score, report, export, select.
# Of the environment that built it (.venv) only torch is lent, since it is a download of up to 3 GB; pip installs and
# checks everything else. Takes two to three minutes, most of it the download.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD built=$PWD/.venv/bin/python
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export AUDIT_PLUGIN_CACHE=$work/stored
unset PYTHONPATH FIFTYONE_DATABASE_URI

fail() { echo "light install: $*" >&2; exit 1; }

"$built" -m build --wheel --no-isolation --outdir "$work/dist" "$root" >"$work/build.log" || { cat "$work/build.log"; fail "no wheel"; }
"$built" -m venv "$work/venv"
python=$work/venv/bin/python audit=$work/venv/bin/audit-plugin

mkdir "$work/lent"
packages=$("$built" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
for path in "$packages"/{torch,functorch,triton,nvidia,cuda}*; do
  [ -e "$path" ] && ln -s "$path" "$work/lent/"
done
echo "$work/lent" >"$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/lent.pth"

"$python" -m pip --disable-pip-version-check install --quiet -c constraints.txt "$work"/dist/*.whl
"$python" -m pip --disable-pip-version-check check
cd "$work"
for name in fiftyone pymongo mongoengine psutil faiss; do
  ! "$python" -c "import $name" 2>/dev/null || fail "$name is installed"
done
"$python" - <<'PYTHON'
import csv

from sklearn.datasets import load_sample_image
from PIL import Image

photo = Image.fromarray(load_sample_image("flower.jpg"))
with open("pairs.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["image", "caption"])
    for number in range(40):
        left, top = 50 * (number % 10), 90 * (number // 10)
        photo.crop((left, top, left + 120, top + 120)).save(f"{number}.png")
        table.writerow([f"{number}.png", f"a part of a flower, {left} from the left and {top} from the top"])
PYTHON
"$audit" score pairs.csv --image image --text caption --trials 2 --epochs 2 >score.log || { cat score.log; fail "score"; }
"$audit" report scores.parquet # it finds pairs.csv by itself
"$audit" export scores.parquet --to clean.csv
"$audit" select scores.parquet --budget '50%'
[ "$(wc -l <clean.csv)" -gt 20 ] || fail "the export is empty"
grep -q '<img' report.html || fail "the report has no images"
said=$("$audit" audit a-dataset 2>&1) && fail "audit needs FiftyOne"
[ "$said" = "error: FiftyOne is not installed: pip install 'audit-plugin[app]'" ] || fail "audit said: $said"
echo "light install: score, report, export and select run without FiftyOne"
