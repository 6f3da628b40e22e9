# syntax=docker/dockerfile:1
# One image, three commands: filmgate migrate | api | worker.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/runtime.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/bootstrap.txt \
    && python -m venv --without-pip /opt/filmgate \
    && uv pip install --no-cache --compile-bytecode --python /opt/filmgate/bin/python --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
# What the build needs is installed from the lock by now: nothing else is downloaded.
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir dist . \
    && uv pip install --no-cache --compile-bytecode --python /opt/filmgate/bin/python --no-deps --no-index dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin filmgate \
    && install -d -o filmgate -g filmgate /var/lib/filmgate
COPY --from=build /opt/filmgate /opt/filmgate
ENV PATH=/opt/filmgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FILMGATE_API_HOST=0.0.0.0 \
    FILMGATE_WORKER_HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/filmgate
# Videos, when they are kept in a local directory, and the spool. The rest of the file system may be read-only.
VOLUME /var/lib/filmgate
EXPOSE 8080 9090
# For the API; a worker is asked with --port 9090.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["filmgate", "health", "--port", "8080"]
ENTRYPOINT ["filmgate"]
CMD ["api"]
