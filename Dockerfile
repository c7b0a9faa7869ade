# syntax=docker/dockerfile:1
# The image of every Ray pod, and of one container on a laptop. How to build and run it: deploy/README.md.
#   CPU (default)   docker build -t dsr-serve:cpu .
#   CUDA            docker build -t dsr-serve:cuda --build-arg VARIANT=cuda .
# Another base needs Python 3.11 or newer with venv, bash, and CA certificates.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
ARG VARIANT=cpu
# Where torch of each variant is found beside the ordinary index. Empty: wherever pip looks anyway.
ARG TORCH_INDEX_CPU=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX_CUDA=https://download.pytorch.org/whl/cu130
# More packages for this image, as 's3fs==2026.9.0' for a video store or weights in a bucket.
ARG EXTRA_PACKAGES=""
# pip reads these by itself: a mirror, wheels in a volume, a certificate of one's own.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
COPY pyproject.toml requirements.lock ./
# One layer for torch, which is most of the bytes and changes least, one for all else; both are as the lock says.
RUN python3 -m venv /opt/dsr \
    && case "${VARIANT}" in \
         cpu) index="${TORCH_INDEX_CPU}" ;; \
         cuda) index="${TORCH_INDEX_CUDA}" ;; \
         *) echo "VARIANT is '${VARIANT}', and must be cpu or cuda" >&2; exit 1 ;; \
       esac \
    && /opt/dsr/bin/pip install ${index:+--extra-index-url "${index}"} --constraint requirements.lock torch
# hadolint ignore=SC2086
RUN /opt/dsr/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      > requirements.txt \
    && /opt/dsr/bin/pip install --constraint requirements.lock -r requirements.txt ${EXTRA_PACKAGES} \
    && /opt/dsr/bin/pip check

# The service itself, with the embedded checkpoint, as an installed package: it tells its version by that.
FROM dependencies AS package
# A C++ compiler, for models/attention.cpp. It stays out of the image; without it torch's kernel computes attention.
RUN if ! command -v g++ && command -v apt-get; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*; \
    fi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY models models
COPY serve serve
RUN /opt/dsr/bin/pip install --no-deps --no-build-isolation --target /app . \
    && rm -rf build ./*.egg-info

FROM ${PYTHON_IMAGE} AS service
ARG VARIANT=cpu
# A user by number, since Kubernetes' runAsNonRoot cannot judge a name. KubeRay starts Ray by bash, and a login shell
# would forget our PATH.
RUN groupadd --gid 10001 dsr \
    && useradd --uid 10001 --gid dsr --home-dir /tmp --no-create-home --shell /usr/sbin/nologin dsr \
    && install -d -o dsr -g dsr /data \
    && echo 'PATH=/opt/dsr/bin:$PATH' > /etc/profile.d/dsr.sh
# The root may be read-only: what is written goes to /tmp, /dev/shm and /data.
ENV PATH=/opt/dsr/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy:middlewares \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
EXPOSE 8000
VOLUME ["/data"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["python", "-m", "serve.local", "--config", "deploy/serve-container.yaml"]
USER 10001:10001
COPY --from=dependencies /opt/dsr /opt/dsr
COPY --from=package /app /app
COPY deploy/serve-container.yaml deploy/
# Last, since it changes with every build.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dsr-serve" \
      org.opencontainers.image.description="Ask a video how things move in 3D over time (${VARIANT})" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
