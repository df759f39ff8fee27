"""Images that the server keeps for people to label: what was rejected, what nearly was, and a few of the others.

    answer ─▶ selection ─▶ token bucket ─▶ [backlog] ─▶ writer ─▶ target
    event loop, microseconds an image                  one thread: hashes, makes room, writes

Nothing here fails or holds up a request: what does not fit into the rate or the backlog is dropped and counted, a
target that is full, gone or slow is told in the log, counted, and tried again with the next image.
`manifest` and `tables` read what was kept: the command `line-ood captured`.
"""
