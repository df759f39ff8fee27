"""The field's benchmarks as data: which sets, in which folders, prepared how, and the numbers published for them.

One JSON file a benchmark, named in `catalogue`; `benchmark` is what they hold, `folders` finds their sets below a root,
`selection` hands exactly their images to `calibration.evaluate`, `comparison` lays what was measured beside what is
published, `record` keeps what was run. docs/field.md is for those who run them.
"""
