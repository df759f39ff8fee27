"""The same network, served by us and by others on the machine at hand: `python -m benchmarks.serving DATA`."""
