"""Proof and measurements on a real GPU: ``python -m benchmarks.gpu``, ``make gpu``."""
