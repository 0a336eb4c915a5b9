# The worker and the gateway: the same code, environment and commands as `perpetune up`.
FROM python:3.11-slim

RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/perpetune
COPY requirements.lock pyproject.toml README.md ./
RUN pip install --no-cache-dir -r requirements.lock
COPY perpetune perpetune
COPY tasks tasks
COPY flows flows
COPY clusters clusters
RUN pip install --no-cache-dir --no-deps .
# The workspace (params.yaml, dvc.yaml, data, assets) is mounted here.
WORKDIR /workspace
