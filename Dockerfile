# Two images: `api` without torch, `worker` with it.
#   docker build --target api -t streamline-api .
#   docker build --target worker -t streamline-worker .
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    STREAMLINE_DATA_DIR=/data
RUN useradd --uid 10001 --create-home streamline \
    && mkdir /data \
    && chown streamline /data
WORKDIR /srv/streamline
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY app ./app
COPY worker ./worker
COPY migrations ./migrations

FROM base AS api
RUN pip install --constraint requirements.lock --editable '.[s3]'
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["streamline", "api", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS worker
RUN pip install --constraint requirements.lock --editable '.[worker,s3]'
USER 10001
VOLUME /data
CMD ["streamline", "worker"]
