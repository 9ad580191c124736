# syntax=docker/dockerfile:1.7
# The application, CPU by default. For a GPU:
#   docker build --build-arg EXTRA=gpu --build-arg CONSTRAINTS=constraints-gpu.txt --build-arg PIP_EXTRA_INDEX_URL= .

FROM python:3.12.12-slim-bookworm AS build
ARG EXTRA=cpu
ARG CONSTRAINTS=constraints-cpu.txt
# pip reads it from the environment: where torch is offered without CUDA's gigabytes.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/coarseloc \
    && /opt/coarseloc/bin/pip install --constraint "$CONSTRAINTS" ".[$EXTRA,postgres]"

FROM python:3.12.12-slim-bookworm
# rasterio's wheel brings GDAL but not libexpat.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home coarseloc \
    && install --directory --owner=coarseloc --group=coarseloc /data /weights
COPY --from=build /opt/coarseloc /opt/coarseloc
ENV PATH=/opt/coarseloc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COARSELOC_DATA_DIR=/data \
    COARSELOC_WEIGHTS_DIR=/weights
USER 10001:10001
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["coarseloc"]
# Reachable from outside the container, so it wants COARSELOC_TOKEN.
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
