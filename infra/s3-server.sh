#!/usr/bin/env bash
# A real S3 server for tests, on loopback or at the address S3_HOST: one Ceph monitor, one OSD in memory and the RADOS
# gateway, all in one folder.
#
#   infra/s3-server.sh start DIR [PORT]   prints AWS_... lines for the environment; takes about 15 s
#   infra/s3-server.sh stop DIR
#
# Needs Debian's packages ceph-mon, ceph-osd, ceph-mgr, radosgw and ceph-common. Data is in memory and goes with it.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
verb=$1; mkdir -p "$2"; dir=$(cd "$2" && pwd); port=${3:-7480}
export CEPH_CONF=$dir/ceph.conf
key=bfr-test secret=bfr-test-secret host=${S3_HOST:-127.0.0.1}

stop() {
  local pids=() file pid
  for file in "$dir"/run/*.pid; do
    [[ -e $file ]] || continue
    pid=$(<"$file")
    # a pid may be somebody else's by now
    if grep -qs -e ceph -e radosgw "/proc/$pid/comm"; then kill "$pid" && pids+=("$pid"); fi
    rm -f "$file"
  done
  for pid in "${pids[@]}"; do
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
}

start() {
  stop
  rm -rf "$dir"/{mon,osd,mgr,rgw,run,log}
  mkdir -p "$dir"/{mon,osd,mgr,rgw,run,log}
  local fsid ring=$dir/keyring osd_uuid
  fsid=$(</proc/sys/kernel/random/uuid)
  osd_uuid=$(</proc/sys/kernel/random/uuid)
  cat > "$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
keyring = $ring
run dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
[mon.a]
mon data = $dir/mon
[mgr.x]
mgr data = $dir/mgr
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = 4294967296
[client.rgw]
rgw data = $dir/rgw
rgw frontends = beast endpoint=$host:$port
rgw thread pool size = 64
rgw dns name = s3.bfr.test
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = bfr-key=$(head -c 32 /dev/zero | base64)
CONF
  {
    ceph-authtool --create-keyring "$ring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$ring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$ring" --gen-key -n mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *'
    ceph-authtool "$ring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
    monmaptool --create --clobber --fsid "$fsid" "$dir/monmap" \
      --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]"
    ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$ring"
    ceph-mon -i a
    ceph-mgr -i x
    ceph osd new "$osd_uuid"
    ceph-authtool "$ring" --gen-key -n osd.0
    ceph auth add osd.0 -i "$ring" mon 'allow profile osd' osd 'allow *' mgr 'allow profile osd'
    ceph-osd -i 0 --mkfs --osd-uuid "$osd_uuid"
    ceph-osd -i 0
    radosgw -n client.rgw
    radosgw-admin -n client.rgw user create --uid=test --display-name=test --access-key="$key" --secret-key="$secret"
    for user in reader writer; do  # may do nothing to the buckets of `test` until a bucket's policy says so
      radosgw-admin -n client.rgw user create --uid=$user --display-name=$user --access-key=$user --secret-key=$user-secret
    done
  } > "$dir/log/start.log" 2>&1 || { tail -20 "$dir/log/start.log" >&2; stop; exit 1; }
  for _ in $(seq 100); do
    (: > "/dev/tcp/$host/$port") 2>/dev/null && break
    sleep 0.2
  done
  echo "AWS_ENDPOINT_URL=http://$host:$port AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret"
}

case $verb in start | stop) "$verb" ;; *) usage ;; esac
