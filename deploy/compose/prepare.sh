#!/bin/sh
# Prepares a folder with docker-compose.yml for `docker compose up`: writes each secret into a file of secrets/, and .env
# with the ids of the owner of this folder. What exists is kept, so that it can be repeated.
#
# The folder secrets/ is closed to others on this machine. The files in it are readable for all, because Docker mounts
# them one by one into containers that run as other users.
set -eu
cd "$(dirname "$0")/../.."
umask 022
mkdir -p -m 700 secrets
mkdir -p .perpetune/s3 backups

random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# keep NAME CONTENT: a new file of secrets/, complete when it gets its name.
keep() {
  if [ -s "secrets/$1" ]; then
    return
  fi
  printf '%s' "$2" > "secrets/.$1"
  chmod 444 "secrets/.$1"
  mv "secrets/.$1" "secrets/$1"
}

for name in postgres_password perpetune_db_password prefect_db_password mlflow_db_password \
  mlflow_password mlflow_secret_key grafana_password vllm_api_key; do
  keep "$name" "$(random)"
done
keep prefect_auth "admin:$(random)"
keep perpetune_api_key "ppt_$(random)"

# The same key twice: in the form of the store, and in that of its clients.
if [ ! -s secrets/s3_credentials ] || [ ! -s secrets/s3.json ]; then
  rm -f secrets/s3_credentials secrets/s3.json
  key=$(random)
  keep s3.json "{\"identities\": [{\"name\": \"perpetune\", \"actions\": [\"Admin\"], \"credentials\": [{\"accessKey\": \"perpetune\", \"secretKey\": \"$key\"}]}]}"
  keep s3_credentials "[default]
aws_access_key_id = perpetune
aws_secret_access_key = $key
"
fi

owner=$(stat -c %u .) group=$(stat -c %g .)
if [ "$owner" = 0 ]; then
  echo "this folder belongs to root, and the containers do not run as root: chown -R 1000:1000 $PWD" >&2
  owner=1000 group=1000
fi
if [ ! -e .env ]; then
  sed -e "s/^PERPETUNE_UID=.*/PERPETUNE_UID=$owner/" -e "s/^PERPETUNE_GID=.*/PERPETUNE_GID=$group/" .env.example > .env
fi
if [ "$(id -u)" = 0 ]; then
  chown "$owner:$group" .perpetune backups
  chown -R "$owner:$group" secrets .env .perpetune/s3
fi
