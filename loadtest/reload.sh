#!/usr/bin/env bash
# Reloads holdline, nginx, HAProxy and Caddy many times, one after the other, each with thousands of
# live sessions in front of the same echo backend: what is dropped, lost and refused, and which
# processes and how much memory are left. Fails if it is anything with holdline.
# Everything listens on loopback, lives in a temporary directory and is ended at the end.
#
#   loadtest/reload.sh [--quick] [--sessions N] [--held N] [--moving N] [--reloads N]
#                      [--every TIME] [--peers NAME,…] [--no-install] [--json]
#
# HOLDLINE=PATH takes another holdline binary. Missing peers are installed from the distribution
# when this runs as root on Debian or Ubuntu, and are skipped otherwise.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-$root/target}
holdline=${HOLDLINE:-$target/release/holdline}
loadtest=${LOADTEST:-$target/release/loadtest}

sessions=2000 held=200 moving=100 reloads=100 every=1s growth=5 install=yes json=
peers=holdline,nginx,haproxy,caddy

# shellcheck source=peers/launch.sh source-path=SCRIPTDIR
. "$here/peers/launch.sh"

while [ $# -gt 0 ]; do
    case $1 in
        # Of less memory, what a machine's noise makes is more.
        --quick) sessions=1000 held=100 moving=50 reloads=50 every=500ms growth=10 ;;
        --sessions) sessions=${2:?}; shift ;;
        --held) held=${2:?}; shift ;;
        --moving) moving=${2:?}; shift ;;
        --reloads) reloads=${2:?}; shift ;;
        --every) every=${2:?}; shift ;;
        --peers) peers=${2:?}; shift ;;
        --no-install) install=no ;;
        --json) json=--json ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 64 ;;
    esac
    shift
done
limit_sessions

[ -x "$loadtest" ] || (cd "$root" && cargo build --release -p loadtest >&2)
for pair in a b; do
    certificate "cert-$pair.pem" "key-$pair.pem"
    cat "$dir/cert-$pair.pem" "$dir/key-$pair.pem" >"$dir/both-$pair.pem"
done
cat "$dir"/cert-[ab].pem >"$dir/ca.pem"
chmod 755 "$dir"

pick_port
backend=$port
start echo-server "$loadtest" echo-server --listen "127.0.0.1:$backend" || exit 1

arguments=()
# add PEER TURN_PORT…: it is started, with its first config in force.
add() {
    echo "$pid" >"$dir/pid-$1"
    arguments+=(--proxy "$1=wss://localhost:$port/,$pid" --also "$1=wss://localhost:$also_port/"
        --reload "$1=exec bash '$here/peers/reload/turn.sh' $1 '$dir/of-$1' \$N")
}
# Sets the ports of a peer, and writes what its turns have to know and its first config.
prepare() {
    local variable
    of=$dir/of-$1
    mkdir "$of"
    ln -s "$dir"/*.pem "$of/"
    for variable in also_port turn_port admin admin_b http_port held_by moving_a moving_b port; do
        pick_port
        [ $variable = port ] || printf -v "$variable" %s "$port"
    done
    for variable in dir port also_port turn_port admin admin_b http_port held_by moving_a moving_b \
        backend files most load_token other_token other_user caddy_delay; do
        printf '%s=%q\n' "$variable" "${!variable:-}"
    done >"$of/env"
    echo "dir=$of" >>"$of/env"
    ln -s "../pid-$1" "$of/pid-$1"
    bash "$here/peers/reload/turn.sh" "$1" "$of" 0
}

# shellcheck disable=SC2034 # prepare takes them by name
start_holdline() {
    [ -x "$holdline" ] || { say "$name: SKIPPED holdline: $holdline is not built"; return 1; }
    local made
    made=$("$holdline" token add load --user load@example.net 2>/dev/null)
    token=${made%%$'\n'*} load_token=${made##*$'\n'}
    made=$("$holdline" token add other --user other@example.net 2>/dev/null)
    other_token=${made##*$'\n'}
    other_user=$("$holdline" user add other@example.net <<<'only for this run' 2>/dev/null)
    prepare holdline
    start holdline "$holdline" --config "$of/holdline.toml" || return 1
    arguments+=(--must holdline --header "Authorization: Bearer $token"
        --header 'Origin: https://load.example.net'
        --held "holdline=wss://localhost:$port/held,127.0.0.1:$held_by"
        --moving "holdline=wss://localhost:$port/moving,127.0.0.1:$moving_a,127.0.0.1:$moving_b")
}
start_nginx() {
    have nginx || return 1
    prepare nginx
    start nginx nginx -p "$of" -e "$of/nginx.log" -c "$of/nginx.conf"
}
start_haproxy() {
    have haproxy || return 1
    prepare haproxy
    start haproxy haproxy -W -db -f "$of/haproxy.cfg"
}
# shellcheck disable=SC2034 # as above
start_caddy() {
    have caddy || return 1
    local version
    version=$(caddy version | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
    if [ "$(printf '%s\n' 2.7 "$version" | sort -V | head -n 1)" = 2.7 ]; then
        caddy_delay='stream_close_delay 24h'
    fi
    prepare caddy
    XDG_DATA_HOME=$of XDG_CONFIG_HOME=$of start caddy \
        caddy run --config "$of/Caddyfile" --adapter caddyfile
}

for peer in ${peers//,/ }; do
    case $peer in
        holdline | nginx | haproxy | caddy) "start_$peer" && add "$peer" ;;
        *) die "--peers knows holdline, nginx, haproxy and caddy, not $peer" ;;
    esac || say "$name: going on without $peer"
done
[ ${#arguments[@]} -gt 0 ] || die "nothing to reload"

say "$name: $sessions live and $held held sessions, $reloads reloads each, $(nproc) cores"
"$loadtest" reload "${arguments[@]}" --ca "$dir/ca.pem" --sessions "$sessions" \
    --held-sessions "$held" --moving-sessions "$moving" --reloads "$reloads" --every "$every" \
    --warm-up 50 --growth "$growth" $json
