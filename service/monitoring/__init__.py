"""Whether what is served is still like what was calibrated: rates of windows, evidence of drift, shifts, by stream.

rates, evidence, psi: mathematics. bins, classes, baseline: what the calibration lets expect. image_window, time_window,
stream, streams: what has been seen. monitor: of every model. report: what is told of it, by metrics and routes.
state, keeper: what outlives the process. docs/monitoring.md says what each number means.
"""
