#!/bin/sh
# `docker compose run --rm backup create /backups/NAME`, or `restore`: `perpetune backup` with the databases of all three.
set -eu
if [ $# = 0 ]; then
  exec perpetune backup --help
fi
umask 077
unset PGPASSWORD__FILE  # that of one database
PGPASSFILE=$(mktemp)  # not on the command line, which others see
export PGPASSFILE
for name in perpetune mlflow prefect; do
  printf 'postgres:5432:%s:%s:%s\n' "$name" "$name" "$(cat "/run/secrets/${name}_db_password")"
done > "$PGPASSFILE"
perpetune backup "$@" --database mlflow=postgresql://mlflow@postgres/mlflow --database prefect=postgresql://prefect@postgres/prefect
