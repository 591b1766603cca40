#!/bin/sh
# Secrets come as files and become the variables that the configuration names: NAME_FILE -> NAME.
# The program replaces this shell, so SIGTERM reaches it and it drains before it ends.
set -eu
for name in MONGODB_URI OTELIER_TOKEN OTELIER_QUERY_TOKEN; do
  eval "file=\${${name}_FILE:-}"
  [ -z "$file" ] && continue
  if [ ! -r "$file" ]; then
    echo "otelier: ${name}_FILE names $file, which cannot be read; mount the secret there or unset the variable" >&2
    exit 1
  fi
  value=$(cat "$file")
  export "$name=$value"
done
exec "$@"
