"""What calibration and serving share: images in, out-of-distribution scores out.

Rooms, each importing only those before it:
errors, types, images, preprocess, spec, classifier, line, methods, detector, conformal, metadata, artifact, scorer.
`embedded` holds the default network that the service starts with.
"""
