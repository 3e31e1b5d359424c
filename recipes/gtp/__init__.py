"""Generative Trajectory Policies from a Minari dataset: training, evaluation, results."""
