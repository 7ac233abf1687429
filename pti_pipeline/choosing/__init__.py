"""Chooses a pivot and a LoRA from what a sweep measured at its distances."""
