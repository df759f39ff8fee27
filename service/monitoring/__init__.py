"""Whether what is served is still like what was calibrated: rates of windows, evidence of drift, shifts, by stream.

rates, mixed_law, evidence, psi: mathematics. score_bins, neighbourhoods, baseline: what the calibration lets expect.
image_window, time_window, stream, streams: what has been seen, within limits. monitor: of every model. report: what is
told of it, by collector and routes. state, keeper: what outlives the process. docs/monitoring.md explains the numbers.
"""
