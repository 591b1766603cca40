#!/bin/sh
# Makes what is secret, once; what is there stays as it is, so your own files win. Runs as root in a container
# without a network; the files are readable by the one user that needs them.
set -eu
cd "${SECRETS:-/run/otelier}"
umask 077
random() { head -c 48 /dev/urandom | base64 | tr -d '\n/+=' | cut -c1-40; }
made() { [ -s "$1" ] && return 1; echo "otelier: made $1"; }
owned() { [ "$(id -u)" -ne 0 ] || chown "$2" "$1"; chmod 400 "$1"; }

made mongo.key && head -c 756 /dev/urandom | base64 | tr -d '\n' | cut -c1-1000 >mongo.key
owned mongo.key 999:999
made mongo-password && random >mongo-password
owned mongo-password 65532:65532
made mongodb-uri && printf 'mongodb://otelier:%s@%s/?authSource=admin&replicaSet=rs0' \
  "$(cat mongo-password)" "${MONGO_HOST:-mongo:27017}" >mongodb-uri
owned mongodb-uri 65532:65532
made query-token && random >query-token
owned query-token 65532:65532
# The folder itself: each user finds its file, and nobody lists them.
chmod 711 .
