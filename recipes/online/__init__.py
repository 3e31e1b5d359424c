"""DIPO from scratch: a diffusion policy, a collector, and actions that move uphill in Q."""
