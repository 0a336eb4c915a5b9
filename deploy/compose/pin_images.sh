#!/bin/sh
# Pins the images of docker-compose.yml: prints each variable of .env.example that names an image, with the digest that
# the registry has for it now. Needs Docker and a connection to the registries:
#
#     sh deploy/compose/pin_images.sh > pinned && cat pinned >> .env
set -eu
cd "$(dirname "$0")/../.."
sed -n 's/^#\{0,1\} \{0,1\}\([A-Z0-9]*_IMAGE\)=\([^@ ]*\).*/\1 \2/p' .env.example | while read -r variable image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  case "$digest" in
    sha256:*) echo "$variable=$image@$digest" ;;
    *)
      echo "the registry gave no digest for $image: $digest" >&2
      exit 1
      ;;
  esac
done
