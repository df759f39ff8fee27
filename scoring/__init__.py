"""What calibration and serving share: images in, out-of-distribution scores out.

Rooms, each importing only those before it:
errors, files, types, arrays, scans, images, preprocess, spec, cores, backbone, engines, classifier, line, kernels,
detector, methods, conformal, groups, combination, ensemble, probes, metadata, artifact, scorer.
`embedded` holds the default network that the service starts with.
"""
