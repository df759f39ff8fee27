"""The offline side: from a classifier and a folder of its images to an artifact, and what the artifact is worth.

dataset -> loader -> passes -> masks -> job -> artifact file; evaluate and report measure it; cli is the command line.
"""
