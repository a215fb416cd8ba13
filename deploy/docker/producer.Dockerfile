# Producer, part verdicts and verdict readers: no torch.
#   docker build -f deploy/docker/producer.Dockerfile -t gaussline-producer .
FROM python:3.12.8-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/gaussline
COPY pyproject.toml README.md ./
COPY worker worker
COPY producer producer
RUN /opt/gaussline/bin/pip install --no-cache-dir ".[video]"

FROM python:3.12.8-slim-bookworm
LABEL org.opencontainers.image.title="gaussline-producer" \
      org.opencontainers.image.description="Pushes a camera's frames into a line, without torch"
RUN useradd --system --uid 10001 --home-dir /var/lib/gaussline --create-home gaussline
COPY --from=build /opt/gaussline /opt/gaussline
ENV PATH=/opt/gaussline/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/gaussline
ENTRYPOINT ["gaussline"]
CMD ["produce", "--help"]
