#!/usr/bin/env bash
# Everything about the CUDA executor that only a device can show, in one go of less than ten minutes; builds nothing.
#
#   make device                                            where the toolkit is: makes build/device/folder
#   tests/device/run.sh [FOLDER] [RESULTS]                 on the machine with the device, in the repository's root
#
# FOLDER (default build/device/folder, about 15 MB, to be carried along) brings programs and libraries; of the machine it
# takes the driver, cuBLAS of the same major version (from CUDA_HOME, the loader's path or PyTorch's packages), python3, and
# where present PyTorch 2 (the peer) and compute-sanitizer. What is missing is a row that says so. Logs are left in RESULTS
# (default: a new folder); the table comes last.
# BL_DEVICE_DRY=1 makes all models tiny: the script itself is tried out, its figures mean nothing. Exit code 0 when no row failed, 1 when one did, 3 without a device.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(realpath "${1:-$root/build/device/folder}") bin=
results=${2:-$(mktemp -d)}
mkdir -p "$results" || exit 3
export PATH=$PATH:/usr/local/cuda/bin
LIMIT=${BL_DEVICE_LIMIT:-560}
bin=$folder/bin
table=$results/table.txt
: >"$table"
failed=0

row() { # WHAT VALUE GOAL [ok|FAILED|-]
  printf '%-46s %-34s %-22s %s\n' "$1" "$2" "$3" "${4:--}" >>"$table"
  [ "${4:--}" != FAILED ] || failed=$((failed + 1))
}
verdict() { # EXPRESSION of awk: ok where it holds
  awk "BEGIN { print ($1) ? \"ok\" : \"FAILED\" }"
}
left() { echo $((LIMIT - SECONDS)); }
limited() { # SECONDS COMMAND...: never beyond the whole limit
  local most=$1 rest
  shift
  rest=$(left)
  [ "$rest" -gt 5 ] || return 124
  timeout "$((most < rest ? most : rest))" "$@"
}
number() { # FILE EXPRESSION over log, the steps of a run log, header, and median
  python3 - "$@" <<'PY'
import json, statistics, sys
lines = [json.loads(x) for x in open(sys.argv[1]) if x.strip()]
header, log, median = lines[0], [x for x in lines if "step" in x], statistics.median
def phase(*names): return median(sum(x["phases"].get(n, 0) for n in names) for x in log[len(log) // 3:])
print("%.6g" % eval(sys.argv[2]))
PY
}
train() { # NAME SECONDS OPTION...
  local name=$1 most=$2
  shift 2
  limited "$most" "$bin/ballast-train" --data "$folder/text.gz" --log "$results/$name.jsonl" "$@" >"$results/$name.out" 2>"$results/$name.err"
}
model() { # NAME LAYERS HIDDEN HEADS EXPERTS SEQUENCE
  [ -z "${BL_DEVICE_DRY:-}" ] || set -- "$1" 2 32 2 "$5" 32
  printf '{"version": 1, "name": "%s", "layers": %d, "hidden": %d, "vocabulary": 256, "sequence": %d, "attention": {"heads": %d}, "moe": {"experts": %d, "width": %d, "top_k": 2}}\n' \
    "$1" "$2" "$3" "$6" "$4" "$5" "$((4 * $3))" >"$results/$1.json"
}
why() { tail -1 "$results/$1.err" 2>/dev/null | cut -c1-70; }

# -- the machine ------------------------------------------------------------------------------------------------------------
for program in ballast-train ballast-plan ballast-profile ballast-trace test_cuda_ops exec_attention; do
  [ -x "$bin/$program" ] || { echo "run.sh: $bin/$program: expected a program; make device packs it"; exit 3; }
done
libraries=$(python3 -c 'import glob, site, sys
for place in [*site.getsitepackages(), *sys.path]:
    for path in glob.glob(place + "/nvidia/cu*/lib") + glob.glob(place + "/nvidia/cublas/lib"): print(path)' 2>/dev/null | sort -u | paste -sd:)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${CUDA_HOME:-/usr/local/cuda}/lib64${libraries:+:$libraries}
model tiny 2 64 2 4 32
train first 60 --model "$results/tiny.json" --backend cuda --steps 1
if [ $? != 0 ]; then
  echo "run.sh: no training step on a device: $(tail -1 "$results/first.err")"
  exit 3
fi
device=$(python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).readline())["mfu"]["device"])' "$results/first.jsonl")
row "device" "$device" ""

# -- right ------------------------------------------------------------------------------------------------------------------
limited 100 "$bin/test_cuda_ops" >"$results/ops.out" 2>&1
said=$(tail -1 "$results/ops.out")
row "every operation against the CPU" "$said" "0 failed" "$(grep -q ' 0 failed, 0 skipped' <<<"$said" && echo ok || echo FAILED)"

planning=$(sed -n 's/^plan_quotas, 256 experts on 64 ranks: \([0-9.]*\) us$/\1/p' "$results/ops.out")
row "counts to quotas, 256 experts on 64 ranks" "${planning:-none} us" "<= 30 us" "$([ -n "$planning" ] && verdict "$planning <= 30" || echo FAILED)"

model small 4 256 4 8 128
small="--model $results/small.json --steps 20 --seed 3"
train cpu 90 $small && train fp32 30 $small --backend cuda --precision fp32 && train bf16 30 $small --backend cuda
if [ $? = 0 ]; then
  for kind in fp32 bf16; do
    worst=$(python3 -c '
import json, sys
a, b = ([json.loads(x)["loss"] for x in open(f) if "\"loss\"" in x] for f in sys.argv[1:])
print("%.2e" % max(abs(x - y) / x for x, y in zip(a, b)))' "$results/cpu.jsonl" "$results/$kind.jsonl")
    goal=$([ $kind = fp32 ] && echo 1e-5 || echo 1e-2)
    row "loss of the small model, $kind, 20 steps" "$worst off the CPU" "<= $goal" "$(verdict "$worst <= $goal")"
  done
else
  row "loss of the small model" "$(why bf16) $(why fp32) $(why cpu)" "" FAILED
fi

# -- fast -------------------------------------------------------------------------------------------------------------------
for shape in "8 1024 16 64" "2 4096 32 128"; do # sequences, tokens of each, heads, width
  [ -z "${BL_DEVICE_DRY:-}" ] || shape="1 32 2 16"
  name=attention_${shape// /_}
  # shellcheck disable=SC2086
  limited 20 "$bin/exec_attention" cuda $shape 21 >"$results/$name.json" 2>"$results/$name.err" || { row "attention $shape" "$(why "$name")" "" FAILED; continue; }
  # shellcheck disable=SC2086
  limited 40 python3 "$root/tests/peer/torch_gpt_moe.py" --attention $shape >"$results/$name.peer.json" 2>"$results/$name.peer.err"
  for way in forward backward; do
    value=$(python3 - "$results/$name.json" "$results/$name.peer.json" $way <<'PY'
import json, sys
ours, way = json.load(open(sys.argv[1])), sys.argv[3]
try: peer = json.load(open(sys.argv[2]))[way + "_us"]
except (ValueError, OSError, KeyError): peer = None
print("%.0f us, %.0f Tflop/s, %s" % (ours[way + "_us"], ours[way + "_tflops"], "sdpa %.0f us: %.2f x" % (peer, peer / ours[way + "_us"]) if peer else "no sdpa"))
PY
)
    row "attention $shape, $way" "$value" "as fast as sdpa"
  done
done

for experts in 8 64; do
  model gpt$experts 12 1024 16 $experts 1024
  train gpt$experts 60 --model "$results/gpt$experts.json" --backend cuda --batch 8 --steps 15 --policy static
  if [ $? != 0 ]; then
    row "GPT-MoE, $experts experts" "$(why gpt$experts)" "" FAILED
    continue
  fi
  ours=$(number "$results/gpt$experts.jsonl" 'median(x["tokens_per_s"] for x in log[5:])')
  best=0 how="PyTorch: none"
  for way in "" --compile; do
    limited "$([ -n "$way" ] && echo 75 || echo 40)" python3 "$root/tests/peer/torch_gpt_moe.py" --experts $experts --batch 8 --steps 15 $way ${BL_DEVICE_DRY:+--layers 1 --hidden 32 --heads 2 --sequence 16} \
      >"$results/peer$experts$way.json" 2>"$results/peer$experts$way.err" || continue
    speed=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["tokens_per_s"])' "$results/peer$experts$way.json")
    [ "$(verdict "$speed > $best")" = ok ] && best=$speed how="PyTorch $(printf %.0f "$speed") ${way#--}"
  done
  ratio=$(awk "BEGIN { print ($best > 0) ? $ours / $best : 0 }")
  row "GPT-MoE, $experts experts: tokens a second" "$(printf %.0f "$ours"), $how" ">= 1.2 x the best" \
    "$([ "$best" = 0 ] && echo - || verdict "$ratio >= 1.2") $(printf %.2f "$ratio")"
done

# Each way to issue the products of experts, one after another being the rows above.
for experts in 8 64; do
  for way in streams grouped; do
    if train gpt$experts$way 30 --model "$results/gpt$experts.json" --backend cuda --batch 8 --steps 9 --policy static --expert-gemm $way; then
      row "GPT-MoE, $experts experts, --expert-gemm $way" "$(printf %.0f "$(number "$results/gpt$experts$way.jsonl" 'median(x["tokens_per_s"] for x in log[4:])')") tokens a second" "which is fastest"
    else
      row "GPT-MoE, $experts experts, --expert-gemm $way" "$(why gpt$experts$way)" "" FAILED
    fi
  done
done

# The exchange on the device: the same losses without copies, and what it saves; steps made again and replayed are counted.
speed() { number "$results/$1.jsonl" 'median(x["tokens_per_s"] for x in log[5:])'; }
for mode in auto off; do
  train planned$mode 60 --model "$results/gpt64.json" --backend cuda --batch 8 --steps 15 --policy static --exchange device --graph $mode
  if [ $? != 0 ] || [ ! -s "$results/gpt64.jsonl" ]; then
    row "planned on the device, graph $mode" "$(why planned$mode)" "" FAILED
    continue
  fi
  again=$(number "$results/planned$mode.jsonl" 'sum(x["redone"] for x in log[1:])')
  replayed=$(number "$results/planned$mode.jsonl" 'sum(x["replayed"] for x in log[1:])')
  row "64 experts, planned on the device, graph $mode" "$(speed planned$mode) tokens/s, $again again, $replayed replayed" \
    "host: $(printf %.0f "$(speed gpt64)")" "- $(awk "BEGIN { printf \"%.2f\", $(speed planned$mode) / $(speed gpt64) }")"
done

for layers in 5 4 3; do
  model wide $layers 4096 32 8 4096
  train wide 60 --model "$results/wide.json" --backend cuda --batch 2 --steps 8 --policy static && break
done
if [ -s "$results/wide.jsonl" ]; then
  mfu=$(number "$results/wide.jsonl" '100 * median(x["mfu"] or 0 for x in log[3:])')
  row "MFU (mcore), hidden 4096, $layers layers" "$mfu % of the data sheet's peak" ">= 50 % of measured"
else
  row "MFU, hidden 4096" "$(why wide)" ">= 50 %" FAILED
fi

experts_us='phase("expert_fwd", "expert_dx", "expert_dw")'
"$bin/ballast-trace" gen --experts 8 --ranks 1 --layers 12 --steps 4 --top-share 0.36 --seed 1 -o "$results/skew.blt" >/dev/null 2>&1
train even 40 --model "$results/gpt8.json" --backend cuda --batch 8 --steps 9 --gate uniform &&
  train skew 40 --model "$results/gpt8.json" --backend cuda --batch 8 --steps 9 --gate "trace:$results/skew.blt"
if [ $? = 0 ]; then
  share=$(awk "BEGIN { print $(number "$results/even.jsonl" "$experts_us") / $(number "$results/skew.jsonl" "$experts_us") }")
  row "experts, hottest 36 %, against uniform" "$share of its rate" ">= 0.90" "$(verdict "$share >= 0.9")"
else
  row "experts, hottest 36 %, against uniform" "$(why skew)" ">= 0.90" FAILED
fi

# -- eight ranks on one device ----------------------------------------------------------------------------------------------
eight="--model $results/mid.json --backend cuda --ranks 8 --batch 8 --steps 12 --seed 3"
model mid 4 1024 16 32 512
"$bin/ballast-trace" gen --experts 32 --ranks 8 --layers 4 --steps 12 --top-share 0.36 --seed 2 -o "$results/hot.blt" >/dev/null 2>&1
train eight 60 $eight --gate "trace:$results/hot.blt" --policy ballast --late-repair 1.02 --record-trace "$results/eight.blt" --dump "$results/eight.dump" \
  --perfetto "$results/eight.perfetto.json" && train level 40 $eight --gate uniform --policy static
if [ $? = 0 ]; then
  "$bin/ballast-plan" replay --trace "$results/eight.blt" --ranks 8 --slots 5 --policy ballast --late-repair 1.02 --dump "$results/replay.dump" \
    >"$results/replay.out" 2>"$results/replay.err"
  row "8 ranks: decisions as replay has them" "$(wc -l <"$results/eight.dump") layer-steps" "byte for byte" "$(cmp -s "$results/eight.dump" "$results/replay.dump" && echo ok || echo FAILED)"
  row "8 ranks: mean imbalance" "$(number "$results/eight.jsonl" 'sum(l["imbalance"] for x in log[1:] for l in x["layers"]) / sum(len(x["layers"]) for x in log[1:])')" ""
  share=$(number "$results/eight.jsonl" '100 * median(sum(x["phases"].get(n, 0) for n in ("choose_hosts", "solve_shares", "copy_reduce", "move_home", "late_fill")) / x["step_us"] for x in log[4:])')
  row "adaptation: solving, reductions, moves" "$share % of the step" "<= 1 % and the copies"
  memory() { sed -n 's/.*at most \([0-9.]*\) MB.*/\1/p' "$results/$1.out"; }
  more=$(awk "BEGIN { print $(memory eight) / $(memory level) }")
  row "peak memory against balanced routing" "$more x" "<= 1.10 x" "$(verdict "$more <= 1.1")"
else
  row "8 ranks on one device" "$(why eight) $(why level)" "" FAILED
fi

train level8 60 $eight --gate uniform --policy static --exchange device
if [ $? = 0 ] && [ -s "$results/level.jsonl" ]; then
  row "8 ranks, balanced, planned on the device" "$(printf %.0f "$(speed level8)") tokens/s" "host: $(printf %.0f "$(speed level)")" \
    "- $(awk "BEGIN { printf \"%.2f\", $(speed level8) / $(speed level) }")"
else
  row "8 ranks, planned on the device" "$(why level8)" "" FAILED
fi

for experts in 64 8; do
  limited 45 "$bin/ballast-profile" --backend cuda --model "$results/gpt$experts.json" --samples 5 ${BL_DEVICE_DRY:+--rows 16 --matrix 32} -o "$results/profile$experts.json" \
    >"$results/profile$experts.out" 2>"$results/profile$experts.err"
  row "profile of GPT-MoE, $experts experts" "$(sed -n 's/.*: \(sgemm .*\)/\1/p' "$results/profile$experts.out" | cut -c1-46)" "" "$([ -s "$results/profile$experts.json" ] && echo ok || echo FAILED)"
  while read -r line; do
    row "experts' products, $experts experts, us an expert" "${line#*us an expert: }" "which is fastest"
  done < <(grep '^--expert-gemm' "$results/profile$experts.out")
done

# With what time is left: these are slow.
for tool in memcheck racecheck; do
  if ! command -v compute-sanitizer >/dev/null; then
    row "compute-sanitizer $tool" "not installed" "clean"
    continue
  fi
  limited 45 compute-sanitizer --tool $tool --error-exitcode 9 "$bin/ballast-train" --data "$folder/text.gz" --model "$results/tiny.json" \
    --backend cuda --ranks 2 --batch 2 --policy ballast --steps 3 >"$results/$tool.out" 2>&1
  code=$?
  row "compute-sanitizer $tool, 2 ranks with copies" "$([ $code = 124 ] && echo "time was up" || grep 'SUMMARY' "$results/$tool.out" | tail -1 | sed 's/=* *//' | cut -c1-34)" \
    "clean" "$([ $code = 0 ] && echo ok || { [ $code = 124 ] && echo - || echo FAILED; })"
done

echo
cat "$table"
command -v ncu >/dev/null && echo "closer: ncu --clock-control none --set full -k regex:'forward|backward' -c 6 $bin/exec_attention cuda 8 1024 16 64 1"
echo "$((SECONDS)) s; logs in $results; $failed rows failed"
[ $failed = 0 ]
