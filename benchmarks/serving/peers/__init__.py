"""One small server a peer, written as its users would write it best; each runs in that peer's own environment."""
