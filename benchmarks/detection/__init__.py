"""The block in its field: real data sets, hosts and metrics."""
