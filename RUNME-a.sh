#!/usr/bin/env bash
# Figures from logs: ./RUNME-a.sh [LOGDIR]
#
# LOGDIR is the SmartMoE artifact's logs/ or a folder of Ballast's own run logs (*.jsonl); logs/ beside this script by
# default. Draws every figure that LOGDIR holds logs for, as PDF and PNG, with the numbers behind each as JSON, into
# outputs_from_log_<time>/ in the current folder. What is missing is named on stderr.
# Exit: 0 drawn, 1 nothing can be drawn from LOGDIR, 2 usage, 3 the machine failed, 130 interrupted.
set -euo pipefail
trap 'exit 130' INT

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-/usr/bin/python3}

case "${1-}" in
  -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) echo "RUNME-a.sh: unknown option $1 (usage: RUNME-a.sh [LOGDIR])" >&2; exit 2 ;;
esac
if [ $# -gt 1 ]; then
  echo "RUNME-a.sh: one folder was expected, found $# arguments (usage: RUNME-a.sh [LOGDIR])" >&2
  exit 2
fi
logs=${1:-$home/logs}

can_draw() { "$python" -c 'import matplotlib' >/dev/null 2>&1; }
if ! can_draw; then
  "$home/setup.sh" >&2 || true
  can_draw || { echo "RUNME-a.sh: $python has no matplotlib and setup.sh did not bring it" >&2; exit 3; }
fi

out=outputs_from_log_$(date +%Y-%m-%d_%H-%M-%S)
serial=2
name=$out
while [ -e "$out" ]; do out=${name}_$serial; serial=$((serial + 1)); done

PYTHONPATH=$home PYTHONDONTWRITEBYTECODE=1 "$python" -m plotting "$logs" --out "$out"
