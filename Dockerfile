# Build:  docker build -t whence .
# Serve:  docker run --rm -v whence:/data whence keys create --name me      (others can reach it, so it needs a key)
#         docker run --rm -v whence:/data -p 8000:8000 --read-only --tmpfs /tmp whence
# Ask:    docker run --rm -v whence:/data whence ask "How much memory did Pingora save?"
# Index:  docker run --rm -v whence:/data -v "$PWD/docs:/docs:ro" whence index /docs
#
# The image has the bundled model, exported, and not the gigabyte of torch that other models, rerankers and
# `--backend torch` need:  docker build --target full -t whence:full .
# There, a model is given by its folder, mounted (--model /models/NAME), and WHENCE_CACHE by one that can be written.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/whence
ENV PATH=/opt/whence/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# Each package in one version and with the digest of its wheel: for Python 3.11 on x86_64, see deploy/lock.py.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes --requirement requirements.lock
# torch from the default index brings GPU libraries along. To get its CPU build, give the index that has it:
# docker build --build-arg TORCH_OPTIONS="--index-url ADDRESS" -t whence .
ARG TORCH_OPTIONS=""
RUN pip install $TORCH_OPTIONS torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY index index
COPY service service
COPY seeds seeds
RUN pip install --no-build-isolation --no-deps .
RUN WHENCE_CACHE=/opt/whence/cache whence prepare && chmod -R a+rX /opt/whence/cache

FROM build AS trimmed
RUN pip uninstall --yes torch sentence-transformers transformers onnx sympy mpmath networkx

FROM python:3.11-slim AS runtime
LABEL org.opencontainers.image.title="Whence" \
      org.opencontainers.image.description="Answers questions in the exact words of your documents, and says whence they come" \
      org.opencontainers.image.licenses="Apache-2.0" \
      whence.model="all-MiniLM-L6-v2" \
      whence.model.sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
RUN useradd --create-home --uid 10001 whence && install -d -o whence -g whence /data
# Nothing is written but the volume and /tmp, so the root file system may be read-only.
ENV PATH=/opt/whence/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WHENCE_CACHE=/opt/whence/cache \
    WHENCE_HOME=/data \
    WHENCE_HOST=0.0.0.0
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f\"http://127.0.0.1:{os.environ.get('WHENCE_PORT', '8000')}/readyz\")"]
ENTRYPOINT ["whence"]
CMD ["serve"]

FROM runtime AS full
COPY --from=build /opt/whence /opt/whence

FROM runtime AS small
COPY --from=trimmed /opt/whence /opt/whence
