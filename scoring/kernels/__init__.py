"""The online half of LINe in one pass over the head's weights, for each kind of device.

`cpu` is compiled by numba, `gpu` by Triton; `scoring.line` is the reference that both are tested against. They are
given `floors` (see `scoring.line.weight_floors`), one table that stands for both masks, and write into what they
are handed. NaN features are not their business: the classifier's own logits show them.
"""
