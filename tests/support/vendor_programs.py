"""A script that stands in for LiteRT's benchmark_model on a phone."""

from __future__ import annotations

# The model's text selects the program's behaviour, and the file for the numbers of its processes.
BENCHMARK_MODEL = """\
for word; do case $word in --graph=*) graph=${word#*=};; --num_runs=*) runs=${word#*=};; esac; done
read -r what where <$graph
[ -z "$where" ] || { sleep 60 & echo $$ $! >$where.part; mv $where.part $where; }
case $what in
segv) kill -SEGV $$;;
fail) echo "ERROR: Failed to open model"; exit 3;;
garbage) echo "count=many"; exit 0;;
hang) wait;;
flood) while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done;;
fill) cat /dev/zero >x; exit 0;;
environment) echo "OMP_NUM_THREADS=$OMP_NUM_THREADS $*"; exit 1;;
esac
echo "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
echo "count=20 first=9000 curr=8000 min=7900 max=9000 avg=8123.5 std=100 p5=7950 median=8000 p95=8800"
echo
echo "count=$runs first=8100 curr=8000 min=7800 max=9600 avg=8050.25 std=90 p5=7850 median=8000 p95=8400"
echo "Inference timings in us: Init: 4321, First inference: 12345, Warmup (avg): 8123.5, Inference (avg): 8050.25"
"""
