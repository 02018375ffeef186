#!/usr/bin/env bash
# The Makefile without this machine's extras: it builds without GLPK, OpenBLAS and CUDA, links GLPK into ballast-plan
# alone, and builds again what a changed switch or header touches and nothing else.   time limit: 600 s
. tests/support/check.sh
links() { [ -f "$1" ] && ldd "$1" | grep -q "$2"; }

build=$TMPDIR/build
# Warnings need optimisation, this test does not need fast programs.
quick_make() { make --no-print-directory -j"$(nproc)" BUILD="$build" OPT_release=-O1 "$@" >"$TMPDIR/log" 2>&1 || { tail -20 "$TMPDIR/log"; return 1; }; }
compiled() { grep -c -- ' -c -o ' "$TMPDIR/log"; }

check "builds without GLPK, OpenBLAS and CUDA" quick_make GLPK=0 OPENBLAS=0 CUDA=0 NVCC= programs
for program in trace plan train profile; do
  check "ballast-$program without GLPK" does_not links "$build/ballast-$program" libglpk
  check "ballast-$program without OpenBLAS" does_not links "$build/ballast-$program" libopenblas
  check "ballast-$program links no CUDA" does_not links "$build/ballast-$program" 'libcuda\|libnccl'
done

check "builds again" quick_make GLPK=0 OPENBLAS=0 CUDA=0 NVCC= programs
check "nothing to compile the second time, found $(compiled)" test "$(compiled)" = 0
check "builds after a header changed" quick_make GLPK=0 OPENBLAS=0 CUDA=0 NVCC= -W base/table.h programs
check "a changed header compiles some files again, found $(compiled)" test "$(compiled)" -gt 0

make -s found >"$TMPDIR/found"
grep -q "^GLPK *yes" "$TMPDIR/found" && have_glpk=1 || have_glpk=0
check "builds with other switches in the same folder" quick_make CUDA=0 NVCC= programs
check "other switches compile everything again, found $(compiled)" test "$(compiled)" -gt 10
if [ $have_glpk = 1 ] && [ -f planner/main.c ] && ls planner/milp/*.c >/dev/null 2>&1; then
  check "ballast-plan has GLPK" links "$build/ballast-plan" libglpk
fi
for program in trace train profile; do
  check "ballast-$program never has GLPK" does_not links "$build/ballast-$program" libglpk
done
make -s help >"$TMPDIR/help"
check "make help lists the targets" grep -q "lint:" "$TMPDIR/help"
finish
