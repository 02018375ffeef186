#!/usr/bin/env bash
# The CUDA backend's own sources, compiled for the processor with the stand-ins of tests/exec/cuda_shim and the address and
# undefined-behaviour sanitizers: every operation against the CPU backend, with threads in two orders; then training with
# them, where losses must be those of the CPU. What only a device can show (cuBLAS itself, streams that overlap, weak
# memory order) this cannot.   time limit: 900 s
. tests/support/check.sh
if ! command -v g++ >/dev/null || [ "$(uname -m)" != x86_64 ]; then
  skip "no g++ for x86-64: the CUDA kernels are not run on the processor"
  finish
fi
if [ -n "${BL_TEST_QUICK:-}" ]; then
  skip "--quick: the CUDA kernels are not run on the processor"
  finish
fi
export ASAN_OPTIONS=detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
shared=$TMPDIR objects=$BL_BUILD shim=$BL_BUILD/shim

# The programs' own objects, but for those that know whether there are CUDA and NCCL.
link_programs() {
  local others
  others=$(ls "$objects"/{base,traces,costmodel,planner,planner/place,planner/baselines,planner/passes,planner/search}/*.o \
    "$objects"/executor/{,cpu/,transport/}*.o 2>/dev/null |
    grep -v '_main\.o$\|/main\.o$\|/command_[a-z_]*\.o$\|executor//*open_[a-z]*\.o$\|transport/nccl\.o$')
  local blas=
  ldd "$objects/ballast-train" | grep -q openblas && blas=-lopenblas
  local program
  for program in train profile; do
    g++ $sanitize -o "$shared/$program" "$objects/executor/${program}_main.o" $others "$shim"/executor/open_*.o \
      "$shim"/executor/{cuda,transport}/*.o "$shim"/tests/exec/cuda_shim/*.o $blas \
      -Wl,--export-dynamic -Wl,--disable-new-dtags,-rpath,"$objects" \
      -lcjson -lz -lm -lpthread || return 1
  done
}
link_test() {
  g++ $sanitize -o "$shared/ops" "$shim"/{base,executor/cpu,executor/cuda,tests/exec,tests/exec/cuda_shim}/*.o \
    "$shim"/executor/{ops,quotas}.c.o "$shim/planner/place/hosts.c.o" -lm -lpthread
}
check "the backend compiles with the stand-ins" nice make --no-print-directory -s -j2 BUILD="$(realpath --relative-to=. "$BL_BUILD")" cuda-shim
check "the test of operations links" link_test
check "the programs link with the stand-ins" link_programs
cat >"$shared/model.json" <<'JSON'
{"version": 1, "name": "tiny", "layers": 3, "hidden": 32, "vocabulary": 256, "sequence": 32,
 "attention": {"heads": 2, "head_width": 16}, "ffn": {"width": 64},
 "moe": {"experts": 8, "width": 48, "top_k": 2, "first_layer": 1}}
JSON
cat >"$shared/small.json" <<'JSON'
{"version": 1, "name": "small", "layers": 2, "hidden": 16, "vocabulary": 256, "sequence": 16,
 "attention": {"heads": 2, "head_width": 8}, "ffn": {"width": 32},
 "moe": {"experts": 8, "width": 16, "top_k": 2, "first_layer": 1}}
JSON
model=$shared/model.json
for i in 1 2 3 4 5; do cat "$0"; done >"$shared/text"

operations() {
  BL_TEST_SMALL=1 nice "$shared/ops" >"$TMPDIR/ops.log" 2>&1
  check "every operation agrees with the CPU backend" test $? = 0
  tail -1 "$TMPDIR/ops.log" | grep -q '^[0-9]* passed, 0 failed, 0 skipped$' || tail -20 "$TMPDIR/ops.log"
  check "the operations were run" grep -q '^[0-9]\{4,\} passed, 0 failed, 0 skipped$' "$TMPDIR/ops.log"
}

losses() { sed -n 's/.*"loss":\([0-9.e-]*\).*/\1/p' "$1"; }
within() { # TOLERANCE LOG LOG: as many steps, each loss within
  paste <(losses "$2") <(losses "$3") | awk -v limit="$1" '
    { d = $1 - $2; if (d < 0) d = -d; if (NF != 2 || d > limit * $1) bad = 1 } END { exit bad || NR != 4 }'
}
train() { # NAME OPTION...: on the CPU, then with the stand-ins in both precisions
  local name=$1
  shift
  local common=(--model "$model" --data "$shared/text" --steps 4 --batch 4 "$@")
  "$objects/ballast-train" "${common[@]}" --log "$TMPDIR/$name.cpu" >"$TMPDIR/train.log" 2>&1 || { cat "$TMPDIR/train.log"; return 1; }
  local precision
  for precision in fp32 bf16; do
    nice "$shared/train" "${common[@]}" --backend cuda --precision $precision --log "$TMPDIR/$name.$precision" \
      >"$TMPDIR/train.log" 2>&1 || { tail -20 "$TMPDIR/train.log"; return 1; }
  done
}
training() {
  check "one rank trains" train one
  check "fp32 as on the CPU" within 1e-6 "$TMPDIR/one.cpu" "$TMPDIR/one.fp32"
  check "bf16 near it" within 2e-3 "$TMPDIR/one.cpu" "$TMPDIR/one.bf16"
  check "two ranks train with copies" train two --ranks 2 --policy ballast --micro-batches 2
  check "fp32 as on the CPU, two ranks" within 1e-6 "$TMPDIR/two.cpu" "$TMPDIR/two.fp32"
  check "bf16 near it, two ranks" within 2e-3 "$TMPDIR/two.cpu" "$TMPDIR/two.bf16"
  check "homes move" train moved --ranks 2 --policy smartmoe:1
  check "fp32 as on the CPU, homes moved" within 1e-6 "$TMPDIR/moved.cpu" "$TMPDIR/moved.fp32"
  sed 's/"hidden": 32/"hidden": 112/; s/"heads": 2, "head_width": 16/"heads": 1, "head_width": 112/' "$shared/model.json" >"$TMPDIR/wide.json"
  local model=$TMPDIR/wide.json bytes
  for bytes in 232448 101376; do # a block's shared memory: of data centres' devices, of others
    check "wide heads train, $bytes bytes" eval "SHIM_SHARED_BYTES=$bytes train wide$bytes"
    check "bf16 near the CPU, wide heads, $bytes bytes" within 2e-3 "$TMPDIR/wide$bytes.cpu" "$TMPDIR/wide$bytes.bf16"
  done
  model=$shared/model.json
  check "a gate with capacity trains" train gshard --gate gshard
  check "fp32 as on the CPU, gshard" within 1e-6 "$TMPDIR/gshard.cpu" "$TMPDIR/gshard.fp32"
}

# Four ranks on the one device: decisions byte for byte as on the CPU, whoever decides. Streams put everything off, or
# some of them run ahead of the others: a wait that is missing changes the loss.
four() { # AHEAD OPTION...
  local ahead=$1
  shift
  local common=(--model "$model" --data "$shared/text" --steps 4 --batch 4 --ranks 4 "$@")
  "$objects/ballast-train" "${common[@]}" --log "$TMPDIR/four.cpu" --dump "$TMPDIR/four.cpu_dump" >"$TMPDIR/train.log" 2>&1 ||
    { cat "$TMPDIR/train.log"; return 1; }
  env $ahead "$shared/train" "${common[@]}" --backend cuda --precision fp32 --expert-gemm $way --log "$TMPDIR/four.cuda" --dump "$TMPDIR/four.cuda_dump" \
    >"$TMPDIR/train.log" 2>&1 || { tail -20 "$TMPDIR/train.log"; return 1; }
  within 1e-5 "$TMPDIR/four.cpu" "$TMPDIR/four.cuda" && cmp "$TMPDIR/four.cpu_dump" "$TMPDIR/four.cuda_dump"
}
has() { # FILE EXPRESSION over p, the JSON in it
  /usr/bin/python3 -c 'import json, sys; p = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$@"
}
four_ranks() {
  way=loop
  for policy in static smartmoe:1 eplb:1 fastermoe "ballast --late-repair 1.01" "ballast --homes cost"; do
    check "four ranks on one device as on the CPU: $policy" four BL_SHIM_COUNTS= --policy $policy
  done
  for way in streams grouped; do
    check "experts' products by $way" four BL_SHIM_AT_ONCE=5 --policy ballast
  done
  way=loop
  for ahead in 1 2 3 4; do
    check "homes and copies move while streams run ahead ($ahead)" four BL_SHIM_AT_ONCE=$ahead --policy ballast --homes free
  done
  tail -1 "$TMPDIR/four.cuda" >"$TMPDIR/last"
  check "both moved, and device times are in the log" has "$TMPDIR/last" \
    'p["moved_bytes"] > 0 < p["fill_bytes"] and all(p["phases"][k] > 0 for k in ("copy_fill", "move_home", "expert_fwd"))'
}

# A step that has been made before asks for no memory, and the host waits for counts and at the end alone.
counted() { # STEPS OPTION...
  local steps=$1
  shift
  BL_SHIM_COUNTS=$TMPDIR/counts.$steps "$shared/train" --model "$model" --data "$shared/text" --steps "$steps" \
    --schedule-steps 6 --batch 4 --ranks 2 --backend cuda "$@" >"$TMPDIR/train.log" 2>&1 || { tail -20 "$TMPDIR/train.log"; return 1; }
}
grown() { # EXPRESSION over a and b, what runs of 3 and of 6 steps asked for
  /usr/bin/python3 -c 'import json, sys; a, b = (json.load(open(f)) for f in sys.argv[2:]); print(a, b); sys.exit(not eval(sys.argv[1]))' \
    "$1" "$TMPDIR/counts.3" "$TMPDIR/counts.6"
}
counts() {
  check "runs of 3 and of 6 steps are counted" eval 'counted 3 --gate uniform && counted 6 --gate uniform'
  check "no memory is asked for in later steps" grown 'a["mallocs"] == b["mallocs"]'
  # two MoE layers and the end, for what is computed and for its copy; the end of the second stream
  check "nobody waits for more than counts and end" grown 'b["syncs"] - a["syncs"] == 3 * 2 * (2 * (2 + 1) + 1)'
  check "at most 200 launches a rank and step" grown '(b["launches"] - a["launches"]) / 3 / 2 <= 200'
}

# Exchanges planned on the device: the run is that of the CPU, also where rows have no room and steps are made again; a step
# waits for its end alone.
planned() {
  local model=$shared/small.json way=loop
  check "planned on the device, homes move" four BL_SHIM_COUNTS= --exchange device --policy smartmoe:1
  check "planned on the device, copies" four BL_SHIM_COUNTS= --exchange device --policy ballast --homes free
  check "planned on the device, no headroom" four BL_SHIM_COUNTS= --exchange device --policy smartmoe:2 --headroom 0
  check "steps were made again" grep -q '"redone":true' "$TMPDIR/four.cuda"
  for ahead in 1 2; do
    check "planned on the device while streams run ahead ($ahead)" four BL_SHIM_AT_ONCE=$ahead --exchange device --policy ballast
  done
  check "learned routing is counted" eval 'counted 3 --policy static && counted 6 --policy static'
  check "nor does drifting routing ask for memory in later steps" grown 'a["mallocs"] == b["mallocs"]'
  local device=(--policy static --exchange device --headroom 3)
  check "planned steps are counted" eval 'counted 3 "${device[@]}" && counted 6 "${device[@]}"'
  check "they ask for no memory" grown 'a["mallocs"] == b["mallocs"]'
  check "and wait for the end of two streams, and copies, alone" grown 'b["syncs"] - a["syncs"] == 3 * 2 * 3'
}

# A planned step is captured once and replayed: nothing that the host has decided in between is in it.
replayed() { # AHEAD OPTION...: the same run without graphs and with them
  local ahead=$1
  shift
  local common=(--model "$model" --data "$shared/text" --steps 6 --batch 2 --micro-batches 2 --exchange device --headroom 3
    --backend cuda --precision fp32 --expert-gemm $way "$@")
  "$shared/train" "${common[@]}" --graph off --log "$TMPDIR/eager" >"$TMPDIR/train.log" 2>&1 || { tail -20 "$TMPDIR/train.log"; return 1; }
  env $ahead BL_SHIM_COUNTS="$TMPDIR/counts" "$shared/train" "${common[@]}" --log "$TMPDIR/graph" >"$TMPDIR/train.log" 2>&1 ||
    { tail -20 "$TMPDIR/train.log"; return 1; }
  numbers() { grep -o '"loss":[^,]*,"grad_norm":[^,]*,"lr":[^,]*' "$1"; }
  [ "$(numbers "$TMPDIR/eager" | wc -l)" = 6 ] && cmp <(numbers "$TMPDIR/eager") <(numbers "$TMPDIR/graph")
}
graphs() {
  local model=$shared/small.json way=loop
  check "a replayed graph trains as eager execution" replayed BL_TEST=
  tail -1 "$TMPDIR/graph" >"$TMPDIR/last"
  check "it was captured once, and launched from the third step on" has "$TMPDIR/counts" 'p["graphs"] == 1 and p["replays"] == 4'
  check "as the log says" test "$(grep -c '"replayed":true' "$TMPDIR/graph")" = 4 -a "$(grep -c '"replayed":true' "$TMPDIR/eager")" = 0
  check "phases of a replayed step add up to its time" has "$TMPDIR/last" \
    '0.7 * p["step_us"] < sum(p["phases"].values()) <= 1.01 * p["step_us"] and p["phases"]["expert_fwd"] > 0 < p["phases"]["optimizer"]'
  "$objects/ballast-trace" gen --experts 8 --layers 1 --ranks 1 --steps 6 --zipf 0.5 -o "$TMPDIR/drift.blt" >/dev/null
  for way in streams grouped; do
    check "a replayed graph, experts' products by $way" replayed BL_SHIM_AT_ONCE=1 --gate "trace:$TMPDIR/drift.blt"
  done
}

# A profile: every kind of work, timed by events.
profile() { # OUTPUT OPTION...
  local output=$1
  shift
  nice "$shared/profile" --model "$model" --backend cuda --samples 1 --rows 32 --matrix 64 -o "$output" "$@" \
    >"$TMPDIR/profile.log" 2>&1 || { tail -20 "$TMPDIR/profile.log"; return 1; }
}
profiles() {
  check "one rank on cuda is profiled" profile "$TMPDIR/one.profile"
  check "bf16 unless asked otherwise" has "$TMPDIR/one.profile" 'p["backend"] == "cuda" and p["num_bytes"] == 2 and p["device"] == "shim"'
  check "what goes to the device and back has curves" has "$TMPDIR/one.profile" \
    'all(len(p["curves"][k]["amounts"]) == 6 for k in ("to_device", "to_host", "exchange")) and "transfer" not in p["curves"]'
  check "experts and attention have curves" has "$TMPDIR/one.profile" \
    'all(min(p["curves"][k]["times_us"]) > 0 for k in "expert_fwd expert_dx expert_dw attention_fwd attention_bwd gate_fwd head".split())'
  check "all ways to issue experts' products are timed" grep -q \
    '^--expert-gemm with 8 experts of 16 rows, us an expert: loop [0-9.]*, streams [0-9.]*, grouped [0-9.]*; [a-z]* wins$' "$TMPDIR/profile.log"
  check "two ranks on one device are profiled" profile "$TMPDIR/two.profile" --ranks 2 --precision fp32
  check "which the profile says" has "$TMPDIR/two.profile" 'p["one_device"] is True and p["num_bytes"] == 4 and "all_reduce" in p["curves"]'
  check "a simulation takes it" "$objects/ballast-plan" simulate --ranks 2 --policy ballast --model "$model" \
    --profile "$TMPDIR/two.profile" --json >"$TMPDIR/simulated"
  "$shared/profile" --backend cuda --clock cpu -o "$TMPDIR/no.profile" 2>"$TMPDIR/err"
  check "processor time is no clock of a device" test $? = 2 -a ! -e "$TMPDIR/no.profile"
}

# NCCL: processes on stand-in devices, with a stand-in for its library.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
nccl() { # NAME RANKS OPTION...: on the CPU with threads, then with nccl in fp32; what is said stays in err
  local name=$1 ranks=$2
  shift 2
  local common=(--model "$model" --data "$shared/text" --steps 4 --batch 12 "$@")
  "$objects/ballast-train" "${common[@]}" --ranks "$ranks" --log "$TMPDIR/$name.cpu" >/dev/null || return 1
  start_nccl "$ranks" "${common[@]}" --log "$TMPDIR/$name.fp32" || { head -20 "$TMPDIR/err"; return 1; }
}
start_nccl() { # RANKS OPTION...
  local ranks=$1
  shift
  local launcher=(mpirun --oversubscribe -np "$ranks")
  [ "$ranks" != 1 ] || launcher=()
  ASAN_OPTIONS=detect_leaks=0 LD_LIBRARY_PATH="$nccl_path" timeout 100 "${launcher[@]}" ${ranked:+"$ranked"} "$shared/train" --backend cuda \
    --precision fp32 --transport nccl "$@" >"$TMPDIR/out" 2>"$TMPDIR/err"
}
says() { # WORDS: one line of the program, with these
  [ "$(grep -c '^ballast-train: ' "$TMPDIR/err")" = 1 ] && grep -q "^ballast-train: .*$1" "$TMPDIR/err" && return
  cat "$TMPDIR/err"
  return 1
}
processes() {
  nccl_path=$shim
  export SHIM_DEVICES=4
  one=(--model "$model" --data "$shared/text" --steps 2 --batch 4)
  mkdir "$TMPDIR/none" && echo no library >"$TMPDIR/none/libnccl.so.2" # before any that the machine has
  check "one rank trains with nccl, without MPI" nccl nccl1 1
  check "as on the CPU" within 1e-6 "$TMPDIR/nccl1.cpu" "$TMPDIR/nccl1.fp32"
  nccl_path=$TMPDIR/none
  start_nccl 1 "${one[@]}"
  check "without NCCL the exit code is 3" test $? = 3
  check "and the sentence names it" says "needs libnccl.so.2"
  nccl_path=$shim
  SHIM_NCCL_FAILS=1 start_nccl 1 "${one[@]}"
  check "an NCCL that does not start: exit code 3" test $? = 3
  check "and its reason" says "NCCL's start: invalid argument"
  if command -v mpirun >/dev/null && [ -e "$objects/ballast-mpi.so" ]; then
    check "four ranks train with copies" nccl nccl4 4 --policy ballast --late-repair 1.02
    check "as on the CPU, four ranks" within 1e-6 "$TMPDIR/nccl4.cpu" "$TMPDIR/nccl4.fp32"
    check "homes move between three ranks" nccl nccl3 3 --policy smartmoe:1 --batch 12
    check "as on the CPU, three ranks" within 1e-6 "$TMPDIR/nccl3.cpu" "$TMPDIR/nccl3.fp32"
    model=$shared/small.json one[1]=$shared/small.json
    check "two ranks train, planned on the device" nccl nccl2 2 --policy smartmoe:3 --exchange device --headroom 3
    check "as on the CPU, two ranks, planned" within 1e-6 "$TMPDIR/nccl2.cpu" "$TMPDIR/nccl2.fp32"
    check "with graphs where hosts stay" grep -q '"replayed":true' "$TMPDIR/nccl2.fp32"
    for graph in off auto; do
      start_nccl 2 "${one[@]}" --steps 8 --policy smartmoe:2 --exchange device --headroom 3 --graph $graph --log "$TMPDIR/moves.$graph"
    done
    check "a graph ends when homes move" cmp <(losses "$TMPDIR/moves.off") <(losses "$TMPDIR/moves.auto")
    check "and another begins" test "$(grep -c '"replayed":true' "$TMPDIR/moves.auto")" -ge 3 -a "$(losses "$TMPDIR/moves.off" | wc -l)" = 8
    "$objects/ballast-trace" gen --experts 8 --layers 1 --ranks 2 --steps 1 --zipf 1.2 --seed 3 -o "$TMPDIR/fixed.blt" >/dev/null
    check "copies that stay where they are" nccl nccl6 2 --policy ballast --gate "trace:$TMPDIR/fixed.blt" --exchange device
    check "as on the CPU, copies" within 1e-6 "$TMPDIR/nccl6.cpu" "$TMPDIR/nccl6.fp32"
    check "are filled in a graph" grep -q '"copy_fill":.*"replayed":true' "$TMPDIR/nccl6.fp32"
    check "and steps made again, with copies" nccl nccl5 2 --policy ballast --exchange device --headroom 0
    check "as on the CPU, steps made again" within 1e-6 "$TMPDIR/nccl5.cpu" "$TMPDIR/nccl5.fp32"
    printf '#!/bin/sh\nBL_SHIM_COUNTS=%s.$OMPI_COMM_WORLD_RANK exec "$@"\n' "$TMPDIR/of_rank" >"$TMPDIR/ranked"
    chmod +x "$TMPDIR/ranked"
    for headroom in 0 0.3; do # sizes of two groups grow at different steps
      ranked=$TMPDIR/ranked start_nccl 4 "${one[@]}" --ep 2 --steps 16 --policy static --exchange device --headroom $headroom \
        --log "$TMPDIR/groups.auto"
      start_nccl 4 "${one[@]}" --ep 2 --steps 16 --policy static --exchange device --headroom $headroom --graph off \
        --log "$TMPDIR/groups.off"
      check "two groups, headroom $headroom: as without graphs" cmp <(losses "$TMPDIR/groups.off") <(losses "$TMPDIR/groups.auto")
      check "in all 16 steps" test "$(losses "$TMPDIR/groups.auto" | wc -l)" = 16
      replays() { for rank in 0 1 2 3; do grep -o '"\(graphs\|replays\)": *[0-9]*' "$TMPDIR/of_rank.$rank" | tr '\n' ' '; echo; done; }
      check "all ranks launch and capture alike" test "$(replays | sort -u | wc -l)" = 1
    done
    check "and do" test "$(grep -c '"replayed":true' "$TMPDIR/groups.auto")" -ge 1
    for steps in 3 6; do # both ranks write, and count alike
      BL_SHIM_COUNTS=$TMPDIR/counts.$steps start_nccl 2 "${one[@]}" --policy static --steps $steps --schedule-steps 6
    done
    # one MoE layer and the end; new memory is cleared and waited for, and ranks differ in it
    check "messages make no host wait, counts and the end do" grown \
      'b["syncs"] - b["mallocs"] - (a["syncs"] - a["mallocs"]) == 3 * 2 * (1 + 1)'
    SHIM_DEVICES=2 start_nccl 3 "${one[@]}" --batch 6
    check "two ranks on one device: exit code 2" test $? = 2
    check "which are named" says "ranks 0 and 2 share one CUDA device"
    nccl_path=$TMPDIR/none
    start_nccl 2 "${one[@]}"
    check "two ranks without NCCL: exit code 3" test $? = 3
    check "one of them says so" says "needs libnccl.so.2"
    nccl_path=$shim
    start_nccl 2 "${one[@]}" --log /dev/full
    check "a rank that fails with nccl: exit code 3" test $? = 3
    check "and says why" says "/dev/full"
    kill_rank_1() { # SIGNAL WORDS: once the log has them
      local process
      until grep -q "$2" "$TMPDIR/killed" 2>/dev/null; do sleep 0.1; done
      for process in /proc/[0-9]*; do
        grep -qzx "$TMPDIR/killed" "$process/cmdline" 2>/dev/null && grep -qzx OMPI_COMM_WORLD_RANK=1 "$process/environ" &&
          kill -"$1" "${process#/proc/}"
      done
    }
    (kill_rank_1 KILL '"step":3') & # ends with the test's process group where the run never starts
    start_nccl 3 "${one[@]}" --batch 6 --steps 100000 --log "$TMPDIR/killed"
    code=$?
    check "a rank that dies ends all others, exit code $code" test $code != 0 -a $code != 124
    named() { # by the ranks that are left, unless mpirun ends them before they have looked
      grep -qE "rank 1: its process has ended|process rank 1 .*signal 9" "$TMPDIR/err" || { head -20 "$TMPDIR/err"; return 1; }
    }
    check "and is named" named
    for exchange in "device --policy static --headroom 9" host; do
      rm "$TMPDIR/killed"
      (kill_rank_1 STOP "$([ "$exchange" = host ] && echo '"step":3' || echo '"replayed":true')") &
      start_nccl 3 "${one[@]}" --batch 6 --steps 100000 --exchange $exchange --deadline 4 --log "$TMPDIR/killed"
      code=$?
      check "so does one that hangs, --exchange $exchange, exit code $code" test $code != 0 -a $code != 124
      check "within the deadline" grep -q "within 4 s" "$TMPDIR/err"
    done
  else
    skip "no mpirun or no mpicc: nccl with several ranks is not run"
  fi
}

# Two or three at a time, each part in a folder of its own.
part() { # FUNCTION
  export TMPDIR=$shared/$1
  passed=0 failed=0 skipped=0
  mkdir "$TMPDIR" && "$1"
  echo "$passed $failed $skipped" >"$TMPDIR/sums"
}
(part operations && part planned) &
(part training && part counts && part profiles && part graphs) &
(part four_ranks && part processes) &
wait
for name in operations planned training counts profiles graphs four_ranks processes; do
  read -r more_passed more_failed more_skipped <"$shared/$name/sums" || more_passed=0 more_failed=1 more_skipped=0
  passed=$((passed + more_passed)) failed=$((failed + more_failed)) skipped=$((skipped + more_skipped))
done
finish
