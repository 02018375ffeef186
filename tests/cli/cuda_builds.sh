#!/usr/bin/env bash
# The CUDA backend compiles for sm_80, sm_90 and sm_100 without warnings; ballast-train --backend cuda refuses with one
# sentence where there is no device; no other program has CUDA in it.   time limit: 900 s
. tests/support/check.sh

compile() { # ARCHITECTURES OBJECT...: in a folder of its own
  local architectures=$1
  shift
  nice make --no-print-directory -j"$(nproc)" BUILD="$TMPDIR/build" NVCC_ARCH="$architectures" "$@" >"$TMPDIR/log" 2>&1
}

compiles() {
  compile "$@" && return
  grep -E 'error|warning' "$TMPDIR/log" | head -20
  return 1
}

for i in 1 2 3 4 5; do cat "$0"; done >"$TMPDIR/text"
train() { "$BL_BUILD/ballast-train" --data "$TMPDIR/text" --steps 1 --log "$TMPDIR/run.jsonl" "$@" >"$TMPDIR/out" 2>"$TMPDIR/err"; }

for program in trace plan; do
  check "ballast-$program has no CUDA in it" does_not grep -q cudaLaunchKernel "$BL_BUILD/ballast-$program"
done

if grep -q "the CUDA backend needs an NVIDIA driver" "$BL_BUILD/ballast-train"; then
  if CUDA_VISIBLE_DEVICES= nvidia-smi >/dev/null 2>&1; then # a driver: hide its devices
    export CUDA_VISIBLE_DEVICES=
  fi
  train --backend cuda
  check "without a device the exit code is 3" test $? = 3
  check "without a device there is one line" test "$(wc -l <"$TMPDIR/err")" = 1
  check "the line says what is missing: $(cat "$TMPDIR/err")" grep -q "NVIDIA driver\|CUDA device" "$TMPDIR/err"
  check "nothing is left behind" test ! -e "$TMPDIR/run.jsonl"
  "$BL_BUILD/ballast-profile" --backend cuda -o "$TMPDIR/profile.json" 2>"$TMPDIR/err"
  check "neither can it be profiled" test $? = 3 -a "$(wc -l <"$TMPDIR/err")" = 1 -a ! -e "$TMPDIR/profile.json"
  train --backend cuda --transport mpi
  check "cuda with mpi is refused" test $? = 2
else
  train --backend cuda
  check "a build without CUDA says so with exit code 1" test $? = 1
  check "the line names the backend" grep -q "no cuda backend" "$TMPDIR/err"
fi

make -s found >"$TMPDIR/found"
if ! grep -q '^nvcc *yes' "$TMPDIR/found"; then
  skip "no nvcc: the CUDA backend is not compiled"
  finish
fi
if [ -n "${BL_TEST_QUICK:-}" ]; then
  skip "--quick: the CUDA backend is not compiled for every architecture"
  finish
fi
check "compiles for sm_80, sm_90 and sm_100" compiles "80 90 100" cuda-objects
check "every source became an object" test "$(ls executor/cuda/*.cu | wc -l)" = "$(ls "$TMPDIR"/build/executor/cuda/*.o | wc -l)"
check "and none warned" does_not grep -q 'warning' <(grep -v -- '-Werror' "$TMPDIR/log")

# The same flags refuse what deserves a warning, in host and in device code.
flags=$(grep -o -- '-std=c++17.* -I\.' "$TMPDIR/log" | head -1)
refuses() {
  printf '#include <stdint.h>\n%s\n' "$1" >"$TMPDIR/bad.cu"
  does_not nvcc_compiles
}
nvcc_compiles() { $nvcc $flags -c -o "$TMPDIR/bad.o" "$TMPDIR/bad.cu" >/dev/null 2>&1; }
nvcc=$(sed -n 's/^\(.*nvcc\) .*/\1/p' "$TMPDIR/log" | head -1)
check "a narrowing conversion is refused" refuses 'int8_t f(int64_t x) { return x; }'
check "an unused variable of a kernel is refused" refuses '__global__ void k(int *p) { int unused = 3; p[0] = 1; }'
printf '__global__ void k(int *p) { p[0] = 1; }\n' >"$TMPDIR/bad.cu"
check "a clean source is not" nvcc_compiles
finish
