# Producer, part verdicts and verdict readers: no torch.
#   docker build -f deploy/docker/producer.Dockerfile -t gaussline-producer .
FROM python:3.12.8-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/gaussline
COPY pyproject.toml README.md ./
COPY worker worker
COPY producer producer
RUN /opt/gaussline/bin/pip install --no-cache-dir ".[video]"

# What is in the image, as CycloneDX: docker build --target sbom --output . gives the file alone.
FROM build AS inventory
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir cyclonedx-bom==7.1.0 \
 && /opt/tools/bin/cyclonedx-py environment --output-format JSON --output-file /sbom.json /opt/gaussline/bin/python

FROM scratch AS sbom
COPY --from=inventory /sbom.json /

FROM python:3.12.8-slim-bookworm
ARG REVISION=""
LABEL org.opencontainers.image.title="gaussline-producer" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.description="Pushes a camera's frames into a line, without torch"
RUN useradd --system --uid 10001 --home-dir /var/lib/gaussline --create-home gaussline
COPY --from=build /opt/gaussline /opt/gaussline
COPY --from=inventory /sbom.json /usr/share/gaussline/sbom.json
ENV PATH=/opt/gaussline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GAUSSLINE_HTTP_HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/gaussline
EXPOSE 9120
# For `produce --http-port 9120`; a subscriber in this image is run with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9120/healthz', timeout=2)"]
ENTRYPOINT ["gaussline"]
CMD ["produce", "--help"]
