"""ONNX graphs in hand: making nodes, reading them; what is learnt of a graph, or tidied in it, before anything else."""
