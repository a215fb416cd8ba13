# Worker, learner, exporter and judge. For CUDA the wheels of PyTorch bring what they need; the host brings its driver:
#   docker build -f deploy/docker/worker.Dockerfile -t gaussline-worker .
# For a smaller image without CUDA name the index of PyTorch's CPU wheels:
#   docker build -f deploy/docker/worker.Dockerfile --build-arg TORCH_INDEX=URL -t gaussline-worker:cpu .
FROM python:3.12.8-slim-bookworm AS build
ARG TORCH_INDEX=""
WORKDIR /build
RUN python -m venv /opt/gaussline
COPY pyproject.toml README.md ./
COPY worker worker
COPY producer producer
RUN if [ -n "$TORCH_INDEX" ]; then /opt/gaussline/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi \
 && /opt/gaussline/bin/pip install --no-cache-dir ".[worker]"

# What is in the image, as CycloneDX: docker build --target sbom --output . gives the file alone.
FROM build AS inventory
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir cyclonedx-bom==7.1.0 \
 && /opt/tools/bin/cyclonedx-py environment --output-format JSON --output-file /sbom.json /opt/gaussline/bin/python

FROM scratch AS sbom
COPY --from=inventory /sbom.json /

FROM python:3.12.8-slim-bookworm
ARG REVISION=""
LABEL org.opencontainers.image.title="gaussline-worker" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.description="Judges frames of a production line with Gaussians of pretrained deep features"
RUN useradd --system --uid 10001 --home-dir /var/lib/gaussline --create-home gaussline
COPY --from=build /opt/gaussline /opt/gaussline
COPY --from=inventory /sbom.json /usr/share/gaussline/sbom.json
ENV PATH=/opt/gaussline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GAUSSLINE_HTTP_HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/gaussline
EXPOSE 9108 9109
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9108/healthz', timeout=2)"]
ENTRYPOINT ["gaussline"]
CMD ["worker", "--connect-for", "60"]
