"""``python -m tests.benchmarks``: all benchmarks, one after the other."""

from tests.benchmarks import bench_sampling, bench_scheduler, bench_sweep

bench_scheduler.main()
bench_sampling.main()
for images in bench_sweep.TARGETS:
    bench_sweep.main(images)
