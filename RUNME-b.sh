#!/usr/bin/env bash
# The whole way, live: ./RUNME-b.sh [--quick]
#
# Makes the machine ready, builds, measures a profile, plans from a recorded trace, trains the same model from the same
# seed under static, smartmoe:10, eplb:10, ballast and forced-uniform routing, predicts those runs, and draws. Logs, plan,
# profile and figures go into outputs_from_exec_<time>/ in the current folder. About 15 minutes on two cores;
# --quick: 3 minutes, with shorter runs. Run again, it starts a new folder and repeats nothing that is already in place.
#
#   MOE_TRACE=DIR   plan from this folder of table_iter*_rank*.log files (the SmartMoE artifact's moe_trace/) instead of
#                   the trace that ships in moe_trace/
#   CORPUS=FILE     train on this file, plain or gzip (enwik8, say) instead of Debian's dict-gcide
#   RANKS=N STEPS=N SEED=N   ranks (the cores, 2 to 8), steps a run (as many as the time allows), seed (1)
#
# Exit: 0 done, 1 wrong input, 2 usage, 3 the machine failed, 130 interrupted (what was finished stays and is named).
set -euo pipefail

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
bin=$home/build/release
python=${PYTHON:-/usr/bin/python3}
seed=${SEED:-1}
out=
started=$SECONDS

fail() { echo "RUNME-b.sh: $2" >&2; exit "$1"; }

quick=0
for argument in "$@"; do
  case $argument in
    --quick) quick=1 ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail 2 "unknown argument $argument (usage: RUNME-b.sh [--quick])" ;;
  esac
done
for name in RANKS STEPS SEED; do
  value=${!name-1}
  case $value in '' | *[!0-9]* | 0* | ????????*) fail 2 "$name=$value: a whole number from 1 was expected" ;; esac
done
[ -z "${CORPUS-}" ] || [ -r "$CORPUS" ] || fail 1 "CORPUS=$CORPUS: no such file"
[ -z "${MOE_TRACE-}" ] || [ -d "$MOE_TRACE" ] || fail 1 "MOE_TRACE=$MOE_TRACE: no such folder"

# An interrupt reaches the program under way too, which stops cleanly by itself; then this.
interrupted() {
  trap - INT TERM
  echo >&2
  if [ -n "$out" ] && [ -d "$out" ]; then
    rm -rf "$out/checkpoints" "$out"/*.part
    if rmdir "$out/logs" "$out" 2>/dev/null; then out=; fi
  fi
  echo "RUNME-b.sh: interrupted${out:+; what was finished stays in $out}" >&2
  exit 130
}
trap interrupted INT TERM

# stage WORDS SECONDS: says what comes and how long it may take; the stage before is done.
stage_number=0 stage_started=$SECONDS
stage() {
  [ "$stage_number" = 0 ] || echo "        took $((SECONDS - stage_started)) s"
  stage_number=$((stage_number + 1)) stage_started=$SECONDS
  echo "[$stage_number/7] $1 (about $2 s)"
}

# Runs a command; a failure ends the script with the command's own exit code, after its own sentence.
run() {
  local code=0
  "$@" || code=$?
  if [ $code = 130 ]; then interrupted; fi
  [ $code = 0 ] || fail $code "stopped at: $*"
}

stage "set up: compiler, libraries, corpus" 5
"$home/setup.sh" || fail 3 "the machine lacks what Ballast needs (see above)"
corpus=${CORPUS:-/usr/share/dictd/gcide.dict.dz}
[ -r "$corpus" ] || fail 1 "no text to train on: install Debian's dict-gcide, or name a file with CORPUS=FILE"

stage "build" 60
make -C "$home" -j"$(nproc)" programs >/dev/null || fail 3 "the build failed (make -C $home says more)"
for program in ballast-trace ballast-plan ballast-profile ballast-train; do
  [ -x "$bin/$program" ] || fail 3 "$bin/$program was not built"
done
PATH=$bin:$PATH # so that run logs name the program, not where it stands

name=outputs_from_exec_$(date +%Y-%m-%d_%H-%M-%S)
out=$name
serial=2
while [ -e "$out" ]; do out=${name}_$serial; serial=$((serial + 1)); done
mkdir -p "$out/logs" "$out/checkpoints" || fail 3 "$out cannot be made"

cores=$(nproc)
ranks=${RANKS:-$((cores < 2 ? 2 : cores > 8 ? 8 : cores / 2 * 2))}
while [ -z "${RANKS-}" ] && [ $((8 % ranks)) != 0 ]; do ranks=$((ranks - 1)); done
experts=8                                      # of the default model
slots=$(((experts + ranks - 1) / ranks + 1)) # its homes and one copy a rank

stage "profile: experts, attention, exchange, memory on this machine, $ranks ranks" $((quick ? 15 : 40))
run ballast-profile --backend cpu --ranks "$ranks" -o "$out/profile.json" >"$out/profile.txt"
tail -n 1 "$out/profile.txt" | sed 's/^/        /'

stage "plan from a recorded trace" 20
if [ -n "${MOE_TRACE-}" ]; then
  run ballast-trace import --from smartmoe "$MOE_TRACE" -o "$out/trace.blt"
  trace=$out/trace.blt plan_ranks=8 plan_slots=5
else
  set -- "$home"/moe_trace/*.blt
  [ -f "$1" ] || fail 1 "$home/moe_trace holds no .blt trace; name a folder with MOE_TRACE=DIR"
  trace=$1 plan_ranks=$ranks plan_slots=$slots
fi
run ballast-trace info "$trace" >"$out/trace.txt"
run ballast-plan place --trace "$trace" --ranks "$plan_ranks" --slots "$plan_slots" -o "$out/plan.json" >"$out/plan.txt"
tail -n 1 "$out/plan.txt" | sed 's/^/        /'
run ballast-plan explain "$out/plan.json" >>"$out/plan.txt"
for policy in static smartmoe:10 eplb:10 "ballast --late-repair 1.02"; do
  # shellcheck disable=SC2086 # the policy's words are several
  run ballast-plan replay --trace "$trace" --ranks "$plan_ranks" --slots "$plan_slots" --policy $policy --json \
    >"$out/replay_${policy%%[: ]*}.json"
done
"$python" - "$out"/replay_{static,smartmoe,eplb,ballast}.json <<'PY'
import json, sys
print(f"        {'replayed policy':<16}{'imbalance, mean':>16}{'99 % below':>12}{'homes moved':>13}{'copies used':>13}")
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        r = json.load(file)
    print(f"        {r['policy']:<16}{r['imbalance_mean']:>16.4f}{r['imbalance_p99']:>12.4f}{r['moves']:>13}{r['copies_used']:>13.2f}")
PY

# train RUN STEP [options]: trains the run of that name (a policy, or uniform) up to a step, from its checkpoint where
# it has one. All runs are the same but for policy and gate.
train() {
  local policy=$1 gate=naive upto=$2
  local name=$out/logs/${1/:/_} checkpoint=$out/checkpoints/${1/:/_} more=()
  shift 2
  case $policy in
    ballast) more+=(--late-repair 1.02) ;;
    uniform) policy=static gate=uniform ;;
  esac
  if [ -d "$checkpoint" ]; then more+=(--resume "$checkpoint"); fi
  run ballast-train --backend cpu --transport threads --ranks "$ranks" --slots "$slots" --data "$corpus" --seed "$seed" \
    --policy "$policy" --gate "$gate" --steps "$upto" --log "$name.jsonl" --record-trace "$name.blt" "${more[@]}" "$@" >/dev/null
}

# Five runs of equally many steps in the time there is: a short run tells what a step takes. They take turns, going on
# from checkpoints, so that whatever else the machine does falls upon all alike.
rounds=$((quick ? 3 : 8))
budget=$((quick ? 75 : 660))
stage "train under five policies, one seed, in $rounds turns" $budget
load=$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || echo 0)
if awk "BEGIN { exit !($load > $cores + 0.5) }"; then
  echo "        other programs are at work here (load $load on $cores cores): step times will be as noisy as that"
fi
if [ -n "${STEPS-}" ]; then
  steps=$STEPS
else
  train static 6
  steps=$("$python" - "$out/logs/static.jsonl" $((budget - 10 * rounds)) <<'PY'
import json, statistics, sys
with open(sys.argv[1], encoding="utf-8") as log:
    times = [json.loads(line)["step_us"] for line in log.readlines()[1:]]
print(max(40, min(400, int(float(sys.argv[2]) / 5 / (statistics.median(times[1:]) / 1e6) / 10) * 10)))
PY
  ) || fail 3 "the short run left no readable log"
  rm -f "$out"/logs/static.*
fi
reached=0
for ((turn = 1; turn <= rounds; turn++)); do
  upto=$((steps * turn / rounds)) before=$SECONDS
  [ $upto -gt $reached ] || continue
  for policy in static smartmoe:10 eplb:10 ballast uniform; do
    train $policy $upto --schedule-steps "$steps" --checkpoint "$out/checkpoints/${policy/:/_}"
  done
  reached=$upto
  echo "        steps up to $upto of $steps: $((SECONDS - before)) s"
done
rm -rf "$out/checkpoints"

stage "predict those runs from the profile and their routing" 5
simulate=(ballast-plan simulate --profile "$out/profile.json" --ranks "$ranks" --slots "$slots" --json)
run "${simulate[@]}" --policy static >"$out/logs/even.simulate.json"
for policy in static smartmoe:10 eplb:10 "ballast --late-repair 1.02"; do
  name=${policy%% *}
  name=$out/logs/${name/:/_}
  # shellcheck disable=SC2086 # the policy's words are several
  run "${simulate[@]}" --policy $policy --trace "$name.blt" --log "$name.jsonl" >"$name.simulate.json"
done
find "$out/logs" -name '*.blt' ! -name static.blt -delete # one trace is enough to keep

stage "draw" 10
export PYTHONPATH=$home PYTHONDONTWRITEBYTECODE=1
run "$python" -m plotting "$out/logs" --out "$out"
echo "        took $((SECONDS - stage_started)) s"
echo "done in $((SECONDS - started)) s: $out"
