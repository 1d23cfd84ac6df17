"""Run every benchmark: `make bench`. Each prints its ratios, named, as its last line."""

from benchmarks import evaluation, training

if __name__ == "__main__":
    training.main()
    evaluation.main()
