#!/bin/sh
# What pip installs into the images, as CycloneDX (https://cyclonedx.org): sbom.sh FOLDER, in the root of the repository.
# Packages of Debian and Python itself are in the SBOM of the base image.
set -eu
tool=${CYCLONEDX:-.venv-audit/bin/cyclonedx-py}
mkdir -p "$1"
bom() { "$tool" requirements - --output-reproducible --of JSON -o "$1"; }
# torch has no hash, because its build depends on the index; deploy/Dockerfile takes it from this line too.
{ cat deploy/requirements.hashes; grep '^torch==' requirements.lock; } | bom "$1/perpetune.cdx.json"
bom "$1/mlflow.cdx.json" < mlflow/requirements.lock
