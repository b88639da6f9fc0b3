"""Times the public API against its rivals: ``python -m benchmarks --help``."""
