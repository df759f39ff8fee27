"""The offline side: from a classifier and a folder of its images to an artifact, and what the artifact is worth.

dataset -> loader -> walk -> passes -> masks -> job -> artifact file, partial beside it; evaluate and report measure it;
cli is the command line.
"""
