#!/bin/sh
# `with_secrets.sh COMMAND`: the command with each variable NAME__FILE replaced by NAME, the content of that file. So the
# secrets of a container are files that only it sees, and neither its configuration nor `docker inspect` shows them.
set -eu
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)__FILE=.*/\1/p'); do
  eval "file=\${${name}__FILE}"
  content=$(cat "$file")
  if [ -z "$content" ]; then
    echo "$file, which ${name}__FILE names, is empty: write the secret into it" >&2
    exit 1
  fi
  unset "${name}__FILE"
  export "$name=$content"
done
exec "$@"
