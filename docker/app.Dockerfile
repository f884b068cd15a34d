# The server. Build from the repository's root: docker build -f docker/app.Dockerfile -t perennial-app .
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m pip install --no-cache-dir uv==0.13.8
COPY pyproject.toml requirements.lock README.md LICENSE ./
# The lock also holds what tests and the demo need; its pins and hashes are kept for the rest.
RUN cp requirements.lock runtime.lock \
    && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        pyproject.toml -o runtime.lock \
    && uv venv /opt/perennial \
    && VIRTUAL_ENV=/opt/perennial uv pip sync --no-cache --require-hashes runtime.lock
COPY alembic alembic
COPY app app
COPY worker worker
RUN VIRTUAL_ENV=/opt/perennial uv pip install --no-cache --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home perennial \
    && install --directory --owner=perennial --group=perennial /data
COPY --from=build /opt/perennial /opt/perennial
ENV PATH=/opt/perennial/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PERENNIAL_HOST=0.0.0.0 \
    PERENNIAL_PORT=8000 \
    PERENNIAL_DATA_DIR=/data \
    TORCH_HOME=/data/torch \
    PERENNIAL_LOG_FORMAT=json
USER 10001
WORKDIR /home/perennial
VOLUME /data
EXPOSE 8000
# Ready: every live version is loaded, warm and has answered.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PERENNIAL_PORT'] + '/readyz', timeout=3)"]
ENTRYPOINT ["perennial"]
CMD ["serve"]
