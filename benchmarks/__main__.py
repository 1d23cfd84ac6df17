"""Run every benchmark: `make bench`. Each prints its ratios, named, as its last line."""

from benchmarks import evaluation, methods, training

if __name__ == "__main__":
    training.main()
    methods.main()
    evaluation.main()
