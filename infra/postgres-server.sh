#!/usr/bin/env bash
# A PostgreSQL server on loopback for Prefect's tests, all of it in one folder.
#
#   infra/postgres-server.sh start DIR [PORT]   prints PREFECT_SERVER_DATABASE_CONNECTION_URL=... for the environment
#   infra/postgres-server.sh stop DIR
#
# Needs Debian's package postgresql. Its server refuses to run as root: then it runs as the user postgres. Data is not
# synced to disk: it is for tests.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
verb=$1; mkdir -p "$2"; dir=$(cd "$2" && pwd); port=${3:-5433}
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
bin=${bin:-$(dirname "$(command -v pg_ctl)")}

as_owner() { if [[ $(id -u) == 0 ]]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

stop() { [[ ! -e $dir/data/postmaster.pid ]] || as_owner "$bin/pg_ctl" --pgdata="$dir/data" --mode=fast --wait stop; }

start() {
  stop
  rm -rf "$dir/data"
  if [[ $(id -u) == 0 ]]; then chown postgres "$dir"; fi
  {
    as_owner "$bin/initdb" --pgdata="$dir/data" --username=prefect --auth=trust --encoding=UTF8 --no-sync
    as_owner "$bin/pg_ctl" --pgdata="$dir/data" --log="$dir/postgres.log" --wait start --options="-c port=$port \
      -c listen_addresses=127.0.0.1 -c jit=off -c unix_socket_directories='$dir' -c fsync=off -c max_connections=200"
    as_owner "$bin/createdb" --host=127.0.0.1 --port="$port" --username=prefect prefect
  } >&2
  echo "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect@127.0.0.1:$port/prefect"
}

case $verb in start) start ;; stop) stop >&2 ;; *) usage ;; esac
