# Build:  docker build -t whence .
# Ask:    docker run --rm -v whence:/data whence ask "How much memory did Pingora save?"
# Serve:  docker run --rm -v whence:/data whence keys create --name me      (others can reach it, so it needs a key)
#         docker run --rm -v whence:/data -p 8000:8000 whence
# Index:  docker run --rm -v whence:/data -v "$PWD/docs:/docs:ro" whence index /docs

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/whence
ENV PATH=/opt/whence/bin:$PATH
COPY pyproject.toml README.md LICENSE ./
COPY index index
COPY service service
COPY seeds seeds
# torch from the default index brings GPU libraries along. To get its CPU build, give the index that has it:
# docker build --build-arg PIP_OPTIONS="--extra-index-url ADDRESS" -t whence .
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir $PIP_OPTIONS .
# Answering the first question exports the model, so that the image has nothing left to prepare.
RUN WHENCE_HOME=/tmp/home WHENCE_CACHE=/opt/whence/cache whence ask "What is Rust?" --json > /dev/null && rm -r /tmp/home

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 whence && install -d -o whence /data
COPY --from=build /opt/whence /opt/whence
RUN chown -R whence /opt/whence/cache
# Offline: another model than the default one is given by its folder (--model /models/NAME), mounted into the container.
ENV PATH=/opt/whence/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    WHENCE_CACHE=/opt/whence/cache \
    WHENCE_HOME=/data
USER whence
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["whence"]
CMD ["serve", "--host", "0.0.0.0"]
