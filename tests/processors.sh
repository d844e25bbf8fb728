#!/usr/bin/env bash
# Runs the tests as processors of other kinds would run them.
#
#   tests/processors.sh [--all] [-- PYTEST ARGUMENTS]
#
# OpenBLAS, torch, oneDNN, MKL and numpy choose their routines by the processor, and routines add up sums in different orders.
# Each run below states that choice through their environment variables:
#
#   blas       OPENBLAS_CORETYPE = Haswell, SkylakeX, Zen; numpy uses AVX-512 with SkylakeX alone
#   aten       ATEN_CPU_CAPABILITY = default (no AVX2), avx2, avx512; the same limit holds for oneDNN and MKL
#   threads    1, 2: of OpenMP, OpenBLAS, MKL and torch
#
# Without --all it makes 9 runs: every blas with every aten, threads in turn, so that each number of threads meets every blas and
# every aten. --all makes all 18. Runs whose instructions this processor lacks are skipped by name. The exit status is 1 if a run
# fails, or if none could be made. PYTEST ARGUMENTS take the place of `-n 2 --dist loadfile`, e.g. paths.
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}

all=false
while (($#)); do
  case $1 in
    --all) all=true ;;
    --) shift; break ;;
    *) echo "usage: tests/processors.sh [--all] [-- PYTEST ARGUMENTS], found '$1'" >&2; exit 2 ;;
  esac
  shift
done
arguments=("$@")
((${#arguments[@]})) || arguments=(-n 2 --dist loadfile)

flags=" $(sed -n '/^flags/{s/.*: //p;q}' /proc/cpuinfo) "
avx512="avx512f avx512cd avx512bw avx512dq avx512vl"
declare -A needs=(
  [Haswell]="avx2 fma" [SkylakeX]="avx2 fma $avx512" [Zen]="avx2 fma" [default]="" [avx2]="avx2 fma" [avx512]="avx2 fma $avx512"
)
declare -A onednn=([default]=SSE41 [avx2]=AVX2 [avx512]=AVX512_CORE) mkl=([default]=SSE4_2 [avx2]=AVX2 [avx512]=AVX512)

# Print the instructions that a blas and an aten need and the processor lacks, each once.
lacking() {
  local name
  for name in $(printf '%s\n' ${needs[$1]} ${needs[$2]} | sort -u); do
    [[ $flags == *" $name "* ]] || printf ' %s' "$name"
  done
}

logs=$(mktemp -d)
trap 'rm -r "$logs"' EXIT
failed=0 made=0 number=0
row='%-9s %-8s %-7s  %s\n'
printf "$row" blas aten threads result
for blas in Haswell SkylakeX Zen; do
  for aten in default avx2 avx512; do
    number=$((number + 1))
    if $all; then counts=(1 2); else counts=($((1 + number % 2))); fi
    for threads in "${counts[@]}"; do
      missing=$(lacking "$blas" "$aten")
      if [[ -n $missing ]]; then
        printf "$row" "$blas" "$aten" "$threads" "skipped: this processor lacks$missing"
        continue
      fi
      disabled=""
      [[ $blas != SkylakeX && -z $(lacking SkylakeX avx512) ]] && disabled="AVX512F AVX512CD AVX512_SKX"
      log="$logs/$blas-$aten-$threads"
      SECONDS=0
      OPENBLAS_CORETYPE=$blas NPY_DISABLE_CPU_FEATURES=$disabled \
        ATEN_CPU_CAPABILITY=$aten ONEDNN_MAX_CPU_ISA=${onednn[$aten]} MKL_ENABLE_INSTRUCTIONS=${mkl[$aten]} \
        OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads \
        "$python" -m pytest "${arguments[@]}" >"$log" 2>&1
      status=$?
      made=$((made + 1))
      result=$(grep -E '^(=+ )?([0-9]+ [a-z]+(, )?)+ in ' "$log" | tail -1 | tr -d '=' | sed 's/ in .*//; s/^ *//')
      if ((status)); then
        failed=$((failed + 1))
        printf "$row" "$blas" "$aten" "$threads" "FAILED (exit $status): ${result:-no test ran}, $SECONDS s"
        grep -E '^(FAILED|ERROR) ' "$log" || tail -20 "$log"
      else
        printf "$row" "$blas" "$aten" "$threads" "passed: ${result:-?}, $SECONDS s"
      fi
    done
  done
done
echo "$made runs, $failed failed"
((made && !failed))
