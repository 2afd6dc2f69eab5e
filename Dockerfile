# Any image with Python 3.11 or later and its venv module, as python3 on the PATH.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
# A throwaway environment with pip installs into the one that the last stage takes, which then holds no pip.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/amqp-bridge
COPY requirements.lock requirements-build.lock ./
RUN /pip/bin/pip --python /opt/amqp-bridge/bin/python install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock && \
    /pip/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge
RUN /pip/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . && \
    /pip/bin/pip --python /opt/amqp-bridge/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl

FROM ${BASE}
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="amqp-bridge" \
      org.opencontainers.image.description="Moves messages from one RabbitMQ queue to another, persistently and with publisher confirms" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The base image's own pip, which nothing here needs.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-*
COPY --from=build /opt/amqp-bridge /opt/amqp-bridge
# The file system may be read-only: bytecode was compiled at installation, and none is written.
ENV PATH=/opt/amqp-bridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python3", "-m", "bridge.cli.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["amqp-bridge"]
CMD ["run"]
