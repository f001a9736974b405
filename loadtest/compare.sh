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

# shellcheck source=peers/launch.sh source-path=SCRIPTDIR
. "$here/peers/launch.sh"

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
limit_sessions

render() {
    sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@BACKEND@|$backend|g" \
        -e "s|@FILES@|$files|g" -e "s|@SESSIONS@|$most|g" -e "s|@THREADS@|$(nproc)|g" \
        -e "s|@PROTOCOL@|$1|g" -e "s|@ADMIN@|${admin:-0}|g" "$here/peers/$2.in" >"$dir/$2"
}

[ -x "$loadtest" ] || (cd "$root" && cargo build --release -p loadtest >&2)
certificate cert.pem key.pem
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
    [ -x "$holdline" ] || { say "$name: SKIPPED holdline: $holdline is not built"; return 1; }
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
    esac || say "$name: going on without $peer"
done
[ ${#proxies[@]} -gt 0 ] || die "nothing to compare"

say "$name: $protocol backend, $sessions idle sessions, $length each, $(nproc) cores"
"$loadtest" compare "${proxies[@]}" --baseline "ws://127.0.0.1:$backend/" --ca "$dir/cert.pem" \
    --protocol "$protocol" --only "$only" --idle-sessions "$sessions" --for "$length" \
    --rounds "$rounds" $json
