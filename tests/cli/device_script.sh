#!/usr/bin/env bash
# tests/device/run.sh refuses with one sentence where there are no programs or no device; tried out with the CPU backend in
# the device's place, every row of its table has a value.   time limit: 300 s
. tests/support/check.sh
folder=$TMPDIR/folder programs=$(realpath "$BL_BUILD")
mkdir -p "$folder/bin"
tests/device/run.sh "$folder" "$TMPDIR/none" >"$TMPDIR/out" 2>&1
check "a folder without programs is refused" test $? = 3 -a "$(wc -l <"$TMPDIR/out")" = 1
gzip -c README.md >"$folder/text.gz"
ln -s "$programs"/ballast-{plan,trace} "$folder/bin/"
printf '#!/bin/sh\necho "ballast-train: no device"\nexit 3\n' >"$folder/bin/ballast-train"
printf '#!/bin/sh\nprintf "plan_quotas, 256 experts on 64 ranks: 9.5 us\\n9 passed, 0 failed, 0 skipped\\n"\n' >"$folder/bin/test_cuda_ops"
printf '#!/bin/sh\necho "{\\"forward_us\\": 12, \\"backward_us\\": 34, \\"forward_tflops\\": 5, \\"backward_tflops\\": 6}"\n' >"$folder/bin/exec_attention"
cp "$folder/bin/ballast-train" "$folder/bin/ballast-profile"
chmod +x "$folder"/bin/*
tests/device/run.sh "$folder" "$TMPDIR/none" >"$TMPDIR/out" 2>&1
check "a machine without a device is refused" test $? = 3 -a "$(grep -c "no training step on a device" "$TMPDIR/out")" = 1

for program in train profile; do # the CPU in the device's place
  cat >"$folder/bin/ballast-$program" <<SH
#!/usr/bin/env bash
options=()
while [ \$# -gt 0 ]; do
  case \$1 in
  --backend | --precision | --expert-gemm) shift 2 ;;
  *) options+=("\$1") && shift ;;
  esac
done
exec "$programs/ballast-$program" "\${options[@]}"
SH
done
BL_DEVICE_DRY=1 BL_DEVICE_LIMIT=200 PATH=/usr/bin:/bin tests/device/run.sh "$folder" "$TMPDIR/dry" >"$TMPDIR/out" 2>&1
check "the table comes last, and says how many rows failed" grep -q 'rows failed$' <(tail -1 "$TMPDIR/out")
for row in "every operation" "small model, fp32" "GPT-MoE, 64 experts: tokens" "MFU (mcore)" "hottest 36 %" "decisions as replay" \
  "adaptation" "peak memory" "profile" "forward  " "64 experts, --expert-gemm grouped" "counts to quotas" "64 experts, planned" \
  "8 ranks, balanced, planned"; do
  check "a row of $row" grep -qF "$row" "$TMPDIR/out"
done
check "a replay has the run's decisions" grep -q "decisions as replay.* ok" "$TMPDIR/out"
[ $failed = 0 ] || cat "$TMPDIR/out"
finish
