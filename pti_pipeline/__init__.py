"""Pivotal tuning for text-to-image diffusion models, as an MLflow project."""

__version__ = "0.1.0"
