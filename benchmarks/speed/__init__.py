"""Speed and memory benchmarks, as ratios to a reference measured in the same run."""
