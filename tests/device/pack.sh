#!/usr/bin/env bash
# Packs a build for a machine that has a device and little else: pack.sh BUILD FOLDER. Programs go to FOLDER/bin with all
# libraries beside them but the C library's own; a text to train on comes along.
set -eu
build=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"
for program in ballast-train ballast-profile ballast-plan ballast-trace tests/exec/test_cuda_ops tests/bench/exec_attention; do
  strip -o "$folder/bin/$(basename "$program")" "$build/$program"
done
for program in "$folder"/bin/*; do
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}'
done | sort -u | grep -v '/lib\(c\|m\|dl\|rt\|pthread\)\.so' | while read -r library; do cp -L "$library" "$folder/lib/"; done
cat README.md ARCHITECTURE.md executor/*.c costmodel/*.c planner/place/*.c | gzip -n9 >"$folder/text.gz"
du -sm "$folder" | awk '{print "packed: " $1 " MB in " $2}'
