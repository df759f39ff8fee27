"""The online side: HTTP in, predictions, out-of-distribution scores and reject flags out."""
