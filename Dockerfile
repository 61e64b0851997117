# One image with two entry points, the server and the worker; docker-compose.yml runs both over one volume.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/charloom
WORKDIR /build
# the dependencies first, by themselves: this layer stays until they change
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m pip install --quiet --require-hashes --only-binary :all: --requirement requirements/build.txt \
    && python -m pip --python /opt/charloom/bin/python install --quiet --no-compile \
        --require-hashes --only-binary :all: --requirement requirements/runtime.txt \
    && find /opt/charloom -type f \
        \( -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete \
    && find /opt/charloom -type d -name tests \( -path '*/numpy/*' -o -path '*/matplotlib/*' \) -prune -exec rm -rf {} +
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY app app
# importing compiles what will be imported, and leaves out the rest: a sixth of the image
RUN python -m app.intake.corpus corpora/shakespeare.txt && chmod 644 corpora/shakespeare.txt \
    && python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/charloom/bin/python install --quiet --no-deps wheels/*.whl \
    && /opt/charloom/bin/python -P -c "import app.cli, app.commands.serve, app.reports.plots, app.worker"

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin charloom \
    && install --directory --owner charloom --group charloom /app/checkpoints
COPY --from=build /opt/charloom /opt/charloom
COPY --from=build /build/corpora /app/corpora
ENV PATH=/opt/charloom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    CHARLOOM_LOG_FORMAT=json
WORKDIR /app
USER 10001:10001
VOLUME /app/checkpoints
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "app.healthcheck", "server", "http://127.0.0.1:8000/healthz"]
ENTRYPOINT ["charloom"]
CMD ["serve", "--host", "0.0.0.0"]
