#!/usr/bin/env bash
# Compares holdline with nginx, HAProxy and Caddy in front of the same echo backend, in one
# interleaved run: idle memory per session, added latency, throughput and CPU per message.
# Everything listens on loopback, lives in a temporary directory and is ended at the end.
#
#   loadtest/compare.sh [--quick] [--protocol echo|openclaw] [--sessions N] [--only AXIS,…]
#                       [--peers NAME,…] [--no-install] [--json]
#
# HOLDLINE=PATH takes another holdline binary. Missing peers are installed from the distribution
# when this runs as root on Debian or Ubuntu, and are skipped otherwise.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-$root/target}
holdline=${HOLDLINE:-$target/release/holdline}
loadtest=$target/release/loadtest

length=10s rounds=5 sessions=2000 only=idle,latency,echo protocol=echo install=yes json=
peers=holdline,nginx,haproxy,caddy

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
say() { printf '%s\n' "$*" >&2; }
die() { say "compare: $*"; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        --quick) length=3s rounds=3 sessions=500 ;;
        --protocol) protocol=${2:?}; shift ;;
        --sessions) sessions=${2:?}; shift ;;
        --only) only=${2:?}; shift ;;
        --peers) peers=${2:?}; shift ;;
        --no-install) install=no ;;
        --json) json=--json ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 64 ;;
    esac
    shift
done
case $protocol in echo | openclaw) ;; *) die "--protocol is echo or openclaw" ;; esac

# A proxy needs two descriptors for a session.
files=$(ulimit -Hn)
[ "$files" = unlimited ] && files=100000
ulimit -n "$files"
most=$(((files - 200) / 2))
if [ "$sessions" -gt "$most" ]; then
    say "compare: $sessions sessions do not fit into $files open files, taking $most"
    sessions=$most
fi

dir=$(mktemp -d)
pids=()
cleanup() {
    local status=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]:-}"; do [ -n "$pid" ] && kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]:-}"; do [ -n "$pid" ] && end "$pid"; done
    rm -rf "$dir"
    exit "$status"
}
# Waits for a process of ours; one that does not end when asked is killed.
end() {
    for _ in $(seq 50); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
    kill -KILL "$1" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
next_port=$((20000 + RANDOM % 8000))
# Sets $port; not called in a subshell, so that no port is given out twice.
pick_port() {
    next_port=$((next_port + 1))
    while listening "$next_port"; do next_port=$((next_port + 1)); done
    port=$next_port
}
# start NAME COMMAND…: in the background, its output in a log; waits for $port.
start() {
    local name=$1
    shift
    "$@" >"$dir/$name.out" 2>&1 &
    pid=$!
    pids+=("$pid")
    for _ in $(seq 100); do
        listening "$port" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    say "compare: $name did not start:"
    tail -n 20 "$dir/$name.out" "$dir/$name.log" >&2 2>/dev/null || true
    return 1
}
# have NAME: whether the command is there, after trying to install it.
have() {
    command -v "$1" >/dev/null && return 0
    if [ "$install" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "compare: installing $1"
        install_quietly "$1" || true
    fi
    command -v "$1" >/dev/null && return 0
    say "compare: SKIPPED $1: not installed"
    return 1
}
# Installs without leaving a service behind: what the package would start is refused by policy,
# and what it enabled for the next boot is disabled again.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d mine=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && mine=yes
    fi
    (apt-get install -y "$1" || { apt-get update && apt-get install -y "$1"; }) >"$dir/apt.out" 2>&1
    local status=$?
    [ -n "$mine" ] && rm -f "$policy"
    systemctl disable "$1" >>"$dir/apt.out" 2>&1 || true
    return $status
}
render() {
    sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@BACKEND@|$backend|g" \
        -e "s|@FILES@|$files|g" -e "s|@SESSIONS@|$most|g" -e "s|@THREADS@|$(nproc)|g" \
        -e "s|@PROTOCOL@|$1|g" -e "s|@ADMIN@|${admin:-0}|g" "$here/peers/$2.in" >"$dir/$2"
}

[ -x "$loadtest" ] || (cd "$root" && cargo build --release -p loadtest >&2)
command -v openssl >/dev/null || die "openssl is needed for a throwaway certificate"
printf '%s\n' '[req]' 'distinguished_name = name' 'x509_extensions = v3' 'prompt = no' '[name]' \
    'CN = localhost' '[v3]' 'basicConstraints = critical, CA:FALSE' \
    'subjectAltName = DNS:localhost, IP:127.0.0.1' >"$dir/openssl.cnf"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -config "$dir/openssl.cnf" -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$dir/openssl.out" ||
    die "openssl failed: $(tail -n 3 "$dir/openssl.out")"
cat "$dir/cert.pem" "$dir/key.pem" >"$dir/both.pem"
chmod 755 "$dir"

pick_port
backend=$port
challenge=
[ "$protocol" = openclaw ] && challenge=--challenge
# shellcheck disable=SC2086
start echo-server "$loadtest" echo-server --listen "127.0.0.1:$backend" $challenge || exit 1

proxies=()
add() { proxies+=(--proxy "$1=wss://localhost:$port/,$pid"); }

start_holdline() {
    [ -x "$holdline" ] || { say "compare: SKIPPED holdline: $holdline is not built"; return 1; }
    pick_port
    admin=$port
    pick_port
    render "$([ "$protocol" = echo ] && echo generic || echo openclaw)" holdline.toml
    start holdline "$holdline" --config "$dir/holdline.toml"
}
start_nginx() {
    have nginx || return 1
    pick_port
    render - nginx.conf
    start nginx nginx -p "$dir" -e "$dir/nginx.log" -c "$dir/nginx.conf"
}
start_haproxy() {
    have haproxy || return 1
    pick_port
    render - haproxy.cfg
    start haproxy haproxy -db -f "$dir/haproxy.cfg"
}
start_caddy() {
    have caddy || return 1
    pick_port
    render - Caddyfile
    XDG_DATA_HOME=$dir XDG_CONFIG_HOME=$dir start caddy \
        caddy run --config "$dir/Caddyfile" --adapter caddyfile
}

for peer in ${peers//,/ }; do
    case $peer in
        holdline | nginx | haproxy | caddy) "start_$peer" && add "$peer" ;;
        *) die "--peers knows holdline, nginx, haproxy and caddy, not $peer" ;;
    esac || say "compare: going on without $peer"
done
[ ${#proxies[@]} -gt 0 ] || die "nothing to compare"

say "compare: $protocol backend, $sessions idle sessions, $length each, $(nproc) cores"
"$loadtest" compare "${proxies[@]}" --baseline "ws://127.0.0.1:$backend/" --ca "$dir/cert.pem" \
    --protocol "$protocol" --only "$only" --idle-sessions "$sessions" --for "$length" \
    --rounds "$rounds" $json
