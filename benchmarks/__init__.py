"""Measures igonnx beside other ways to the same attributions: `python -m benchmarks`, or `make bench` for all of them.

Every entry (a program that computes forward passes, gradients or Integrated Gradients of one model) runs in a process
of its own, checks its result against a reference in float64 before it is timed, and is then timed in turn with all
others, round by round, while the others wait.
"""
