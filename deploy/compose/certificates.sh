#!/bin/sh
# `sh deploy/compose/certificates.sh [NAME...]`, after prepare.sh: the certificates of deploy/compose/tls.yml in secrets/,
# by a CA of this folder. NAMEs are those by which others reach the proxy; put a certificate of yours, with its chain and
# key, into secrets/proxy.pem before, and it is kept. What exists is kept: to renew a certificate delete its file.
set -eu
cd "$(dirname "$0")/../.."
umask 077
days=825

if [ ! -s secrets/vllm_ca.key ] || [ ! -s secrets/vllm_ca.pem ]; then
  openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=perpetune, $(hostname)" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout secrets/vllm_ca.key -out secrets/vllm_ca.pem 2> /dev/null
  chmod 444 secrets/vllm_ca.pem
fi

# certificate FILE NAMES: certificate and key in one file of secrets/.
certificate() {
  if [ -s "secrets/$1" ]; then
    return
  fi
  work=$(mktemp -d)
  openssl req -newkey rsa:3072 -nodes -subj "/CN=${1%.pem}" -keyout "$work/key" -out "$work/request" 2> /dev/null
  printf '%s\n' "subjectAltName=$2" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
    extendedKeyUsage=serverAuth,clientAuth > "$work/extensions"
  openssl x509 -req -in "$work/request" -CA secrets/vllm_ca.pem -CAkey secrets/vllm_ca.key -days "$days" \
    -set_serial "0x$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" -extfile "$work/extensions" -out "$work/certificate" 2> /dev/null
  cat "$work/certificate" "$work/key" > "secrets/.$1"
  chmod 444 "secrets/.$1"  # the folder is closed to others; a container that runs as another user reads it
  mv "secrets/.$1" "secrets/$1"
  rm -r "$work"
}

names=DNS:localhost,IP:127.0.0.1,DNS:proxy
for name in "$@"; do
  names="$names,DNS:$name"
done
certificate proxy.pem "$names"
certificate vllm_server.pem DNS:vllm,DNS:localhost
certificate vllm_client.pem DNS:perpetune
if [ "$(id -u)" = 0 ]; then
  chown "$(stat -c %u:%g secrets)" secrets/*.pem secrets/vllm_ca.key
fi
