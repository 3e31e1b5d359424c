"""Pretraining on a Minari dataset, then fine-tuning with a TorchRL collector."""
