"""The Open Inference Protocol v2 over HTTP, as KServe and Triton speak it, with the binary tensor extension.

schemas: what the JSON holds · tensors: elements to bytes and back · inputs: the images of a request · codec: bodies to
calls, results to bodies · results: what is answered of an image · failures: of one of several · routes: the endpoints
"""
