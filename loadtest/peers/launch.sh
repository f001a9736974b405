# For the scripts beside: processes on loopback in a temporary directory, all ended at the end.
# They set $here, $install and $sessions first. Not a command.
# shellcheck shell=bash disable=SC2154,SC2015

name=$(basename "$0" .sh)
say() { printf '%s\n' "$*" >&2; }
die() { say "$name: $*"; exit 1; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

# limit_sessions: raises the limit of open files, and takes no more $sessions than fit below it.
# Sets $files and $most. A proxy needs two descriptors for a session.
limit_sessions() {
    files=$(ulimit -Hn)
    [ "$files" = unlimited ] && files=100000
    ulimit -n "$files"
    most=$(((files - 200) / 2))
    if [ "$sessions" -gt "$most" ]; then
        say "$name: $sessions sessions do not fit into $files open files, taking $most"
        sessions=$most
    fi
}

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
# start WHAT COMMAND…: in the background, its output in a log; waits for $port.
start() {
    local what=$1
    shift
    "$@" >"$dir/$what.out" 2>&1 &
    pid=$!
    pids+=("$pid")
    for _ in $(seq 600); do
        listening "$port" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    say "$name: $what did not start:"
    tail -n 20 "$dir/$what.out" "$dir/$what.log" >&2 2>/dev/null || true
    return 1
}
# have NAME: whether the command is there, after trying to install it.
have() {
    command -v "$1" >/dev/null && return 0
    if [ "$install" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "$name: installing $1"
        install_quietly "$1" || true
    fi
    command -v "$1" >/dev/null && return 0
    say "$name: SKIPPED $1: not installed"
    return 1
}
# Installs without leaving a service behind: what the package would start is refused by policy,
# and what it enabled for the next boot is disabled again.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d mine=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && mine=yes
    fi
    local patient=(-o Acquire::Retries=5 -o DPkg::Lock::Timeout=120)
    {
        apt-get "${patient[@]}" install -y "$1" ||
            { apt-get "${patient[@]}" update && apt-get "${patient[@]}" install -y "$1"; }
    } >"$dir/apt.out" 2>&1
    local status=$?
    [ -n "$mine" ] && rm -f "$policy"
    systemctl disable "$1" >>"$dir/apt.out" 2>&1 || true
    return $status
}
# certificate CERT KEY: a throwaway one for localhost, into $dir.
certificate() {
    command -v openssl >/dev/null || die "openssl is needed for a throwaway certificate"
    printf '%s\n' '[req]' 'distinguished_name = name' 'x509_extensions = v3' 'prompt = no' '[name]' \
        'CN = localhost' '[v3]' 'basicConstraints = critical, CA:FALSE' \
        'subjectAltName = DNS:localhost, IP:127.0.0.1' >"$dir/openssl.cnf"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
        -config "$dir/openssl.cnf" -keyout "$dir/$2" -out "$dir/$1" 2>"$dir/openssl.out" ||
        die "openssl failed: $(tail -n 3 "$dir/openssl.out")"
}
