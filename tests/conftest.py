"""What all tests share: hypothesis profiles, and as many threads as are good for tiny networks."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

# No deadline: the machines that run the tests are shared, and a slow example is no wrong one.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

torch.set_num_threads(2)
