"""`python -m igonnx` is the command `igonnx`."""

from igonnx.cli import main

main()
