#!/usr/bin/env bash
# turn.sh PEER DIR N: takes PEER, whose files are in DIR, to its config number N, and returns when
# that is in force. Prints what has changed, where PEER says so. With N = 0 only writes the config.
#
# Settings take turns: with reload N those of group N modulo $groups change, to and fro. After a
# multiple of twice as many reloads all are as at the beginning.
set -euo pipefail

peer=$1 dir=$2 n=$3
# shellcheck source=/dev/null
. "$dir/env"
# shellcheck source=nginx.sh source-path=SCRIPTDIR
. "$(dirname "$0")/$peer.sh"

# either VARIABLE GROUP A B: what the group's settings are with this config.
either() {
    if ((((n - $2 + groups) / groups) % 2)); then printf -v "$1" %s "$4"; else printf -v "$1" %s "$3"; fi
}
# write FILE: standard input takes the place of the file, whole.
write() {
    cat >"$1.next"
    mv "$1.next" "$1"
}
# ask PORT METHOD PATH: the whole answer.
ask() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" "$3" >&3
    cat <&3
    exec 3>&-
} 2>/dev/null
# until_it CONDITION…: for 30 seconds.
until_it() {
    local late=$((SECONDS + 30))
    until "$@"; do
        [ $SECONDS -lt $late ] || { echo "not in force after 30 s" >&2; return 1; }
        sleep 0.01
    done
}
# Whether a peer's own page, on a port of its own, names this config.
says_so() { [[ $(ask "$turn_port" GET /turn) == *"turn $n." ]]; }

config
[ "$n" = 0 ] || apply
