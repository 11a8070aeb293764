#!/usr/bin/env bash
# The two servers without containers, for one machine: PostgreSQL as Debian installs it, and MLflow.
# Both listen on loopback. Run it as a user who may `sudo -u postgres`; it asks for one password.
#   bash cluster/tracking/plain.sh ARTIFACT-FOLDER
set -euo pipefail

artifacts=$1
folder=$(cd "$(dirname "$0")/../.." && pwd)
secret=${POSETUNE_SECRET:-$HOME/.posetune-postgres}
port=${PGPORT:-5432}
if [ ! -s "$secret" ]; then
  read -rsp "a new password for the database user posetune: " password
  echo
  in_sql=${password//\'/\'\'}
  # May be repeated: a server that was down the first time, or went down in the middle, is no harm.
  sudo -u postgres psql --quiet --port="$port" --set=ON_ERROR_STOP=1 <<SQL
SELECT 'CREATE ROLE posetune LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'posetune') \gexec
ALTER ROLE posetune PASSWORD '$in_sql';
SELECT 'CREATE DATABASE study OWNER posetune' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'study') \gexec
SELECT 'CREATE DATABASE mlflow OWNER posetune' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mlflow') \gexec
SQL
  # Last, so that a run that failed asks again.
  (umask 077 && printf '%s' "$password" > "$secret")
fi
password=$(cat "$secret")
in_file=${password//\\/\\\\}
in_file=${in_file//:/\\:}
export PGPASSFILE=$secret.pgpass
(umask 077 && printf '127.0.0.1:%s:*:posetune:%s\n' "$port" "$in_file" > "$PGPASSFILE")

echo "study database: POSETUNE_DATABASE=postgresql://posetune@127.0.0.1:$port/study (PGPASSFILE=$PGPASSFILE)"
exec "$folder/.venv/bin/mlflow" server --host 127.0.0.1 --port 5000 \
  --backend-store-uri postgresql+psycopg://posetune@127.0.0.1:$port/mlflow --artifacts-destination "$artifacts"
