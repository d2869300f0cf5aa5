"""Operators written in other operators: what a fused, quantised or recurrent operator means in the standard's basic ones."""
