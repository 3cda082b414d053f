# What the README does, in a container: `docker build -t graftlab .`, then `docker run graftlab` is `make demo`.
# For CUDA: `docker build --build-arg TORCH=cu130 -t graftlab .`, and `docker run --gpus all graftlab ...`.
FROM python:3.12-slim

# Which build of torch: cpu, or one for CUDA, as on https://pytorch.org/get-started/locally
ARG TORCH=cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/${TORCH}

RUN apt-get update && apt-get install --yes --no-install-recommends bash git make && rm -rf /var/lib/apt/lists/*
WORKDIR /graftlab
COPY . .
RUN make .venv/demo
ENV PATH=/graftlab/.venv/bin:$PATH
CMD ["make", "demo"]
