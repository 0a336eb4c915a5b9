#!/bin/sh
# One database and one role for each service with state; the role owns its database and opens no other. The image of
# PostgreSQL runs this once, when its volume is empty.
set -eu
for name in perpetune prefect mlflow; do
  psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres --set name="$name" <<SQL
\\set password \`cat /run/secrets/${name}_db_password\`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
