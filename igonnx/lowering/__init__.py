"""Operators written in other operators: what fused, quantised and recurrent ones mean in the standard's basic ones."""
