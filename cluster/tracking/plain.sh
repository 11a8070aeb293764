#!/usr/bin/env bash
# The two servers without containers, for one machine: PostgreSQL as Debian installs it, and MLflow.
# Both listen on loopback. Run it as a user who may `sudo -u postgres`; it asks for one password.
#   bash cluster/tracking/plain.sh ARTIFACT-FOLDER
set -euo pipefail

artifacts=$1
folder=$(cd "$(dirname "$0")/../.." && pwd)
secret=${POSETUNE_SECRET:-$HOME/.posetune-postgres}
if [ ! -s "$secret" ]; then
  read -rsp "a new password for the database user posetune: " password
  echo
  (umask 077 && printf '%s' "$password" > "$secret")
  sudo -u postgres psql --quiet <<SQL
CREATE ROLE posetune LOGIN PASSWORD '${password//\'/\'\'}';
CREATE DATABASE study OWNER posetune;
CREATE DATABASE mlflow OWNER posetune;
SQL
fi
export PGPASSFILE=$secret.pgpass
(umask 077 && printf '127.0.0.1:5432:*:posetune:%s\n' "$(cat "$secret")" > "$PGPASSFILE")

echo "study database: POSETUNE_DATABASE=postgresql://posetune@127.0.0.1/study (PGPASSFILE=$PGPASSFILE)"
exec "$folder/.venv/bin/mlflow" server --host 127.0.0.1 --port 5000 \
  --backend-store-uri postgresql+psycopg://posetune@127.0.0.1/mlflow --artifacts-destination "$artifacts"
