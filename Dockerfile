# Two targets: `cpu` (the default) and `cuda`. How to build and run them: docs/docker.md

FROM docker.io/library/python:3.11-slim-bookworm AS build
# pip lives beside the environment, not in it: the final image installs nothing.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/line-ood
WORKDIR /src
# The dependencies come first, and from pyproject.toml alone: a change of the code leaves their layer as it is.
COPY pyproject.toml ./
RUN /opt/pip/bin/python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = project['optional-dependencies']; print(*project['dependencies'], *extras['cpu'], *extras['demo'], *extras['otel'], sep='\n')" > requirements.txt \
    && grep '^torch' requirements.txt > torch.txt
# Where torch and torchvision come from. Empty: the default package index, whose torch brings CUDA along.
ARG TORCH_INDEX_URL=""
RUN /opt/pip/bin/pip --python /opt/line-ood/bin/python install --no-cache-dir \
        ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} --requirement torch.txt \
    && /opt/pip/bin/pip --python /opt/line-ood/bin/python install --no-cache-dir --requirement requirements.txt
COPY README.md LICENSE line_ood.py ./
COPY scoring scoring
COPY calibration calibration
COPY service service
RUN /opt/pip/bin/pip --python /opt/line-ood/bin/python install --no-cache-dir --no-deps --prefix /project .

FROM docker.io/library/python:3.11-slim-bookworm AS runtime
# The model cache is the user's home, so that whatever else wants to keep something finds a writable place.
RUN groupadd --gid 10001 line-ood \
    && useradd --uid 10001 --gid 10001 --home-dir /cache --create-home --shell /usr/sbin/nologin line-ood \
    && install --directory --owner 10001 --group 10001 /artifacts
COPY --from=build /opt/line-ood /opt/line-ood
COPY --from=build /project /opt/line-ood
ENV PATH=/opt/line-ood/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    TORCH_HOME=/cache/torch \
    HF_HOME=/cache/huggingface \
    LINE_OOD_HOST=0.0.0.0 \
    LINE_OOD_PORT=8080
USER 10001:10001
VOLUME ["/cache"]
EXPOSE 8080
# No proxy is asked for the container's own address, whatever proxy the container has been given.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=ssl._create_unverified_context())).open(('https' if 'LINE_OOD_TLS_CERT' in os.environ else 'http') + '://127.0.0.1:' + os.environ['LINE_OOD_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["line-ood"]
CMD ["serve"]

FROM runtime AS cuda
# Which devices and driver libraries NVIDIA's container runtime brings in. Without a GPU the start fails, and says so.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LINE_OOD_DEVICE=cuda

FROM runtime AS cpu
ENV LINE_OOD_DEVICE=cpu
