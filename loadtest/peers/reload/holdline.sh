# holdline: POST /reload, which answers when all is in force and with what has changed; now and then
# SIGHUP, or nothing at all but the changed file. Every kind of setting changes in its turn.
# shellcheck shell=bash disable=SC2154,SC2034

groups=25

config() {
    # Policies of sessions.
    either max 1 10m 20m
    either upgrade 1 12s 8s
    either handshake 1 12s 9s
    either notice_after 1 500ms 1s
    either notice_every 1 5s 10s
    either buffer 2 256KiB 512KiB
    either buffer_total 2 64MiB 96MiB
    either rate 3 200 400
    either unfinished 3 64 128
    either unfinished_ip 3 16 32
    either replay 4 safe never
    either sessions_most 5 "$most" "$((most - 500))"
    either sessions_ip 5 "$((most - 600))" "$((most - 700))"
    either handshakes 5 100000/s 90000/s
    either frame 6 25MiB 16MiB
    either preauth 6 64KiB 32KiB
    either header_timeout 6 10s 15s
    either tls_timeout 6 10s 8s
    either ping 7 30s 3s
    either drain 7 30s 60s
    either handover 7 1h 2h
    either origins 8 '' ', "https://other.example.net"'
    either level 9 info info,holdline::session=debug
    either format 9 json pretty
    # Certificates: another pair, another content under the same names, another version.
    either pair 10 a b
    either content 11 a b
    either min_version 12 1.2 1.3
    # The ways in.
    either also_listen 13 ", \"127.0.0.1:$also_port\"" ''
    either http 14 '' "\"127.0.0.1:$http_port\""
    either trusted 15 '' '"10.0.0.0/8"'
    # The ways out.
    # Not at the end of the file: one that is only cut short is not taken by itself.
    either unused 16 '' '[[route]]
host = "*.unused.example.net"
url = "http://127.0.0.1:9"
protocol = "generic"
probe = "tcp"
resume = "splice"
'
    either moved 17 "$moving_a" "$moving_b"
    either every 18 500ms 300ms
    either every_ready 18 5s 2s
    either connect 18 2s 3s
    either probe 19 auto tcp
    either http_hold 19 30s 20s
    either page_after 19 1s 2s
    either admin_port 20 "$admin" "$admin_b"
    # Who may come in.
    either modes 21 '"token"' '"token", "mtls", "password"'
    either ca 21 '' "$dir/cert-b.pem"
    either token 22 '' ", $other_token"
    either user 21 '' "$other_user"
    either idle 23 7d 3d
    either signed_in 23 30d 20d
    either loopback_as 23 192.0.2.1 192.0.2.2
    either public 24 /health /hooks
    either certificate_name 24 subject.cn san.dns
    either state 24 state-a state-b
    either forward 25 '' "http://127.0.0.1:$backend/auth"
    either forward_mode 25 '' ', "forward"'
    either cache 25 10s 20s
    either recheck 25 60s 90s
    either without 25 10m 20m
    either resume 25 auto reconnect
    either user_header 25 x-forwarded-user x-auth-user

    write "$dir/key-live.pem" <"$dir/key-$content.pem"
    write "$dir/cert-live.pem" <"$dir/cert-$content.pem"
    write "$dir/holdline.toml" <<END
[listen]
https = ["127.0.0.1:$port"$also_listen]
http = [$http]
trusted_proxies = [$trusted]

[tls]
certificate = "files"
files = [
    { cert = "$dir/cert-$pair.pem", key = "$dir/key-$pair.pem" },
    { cert = "$dir/cert-live.pem", key = "$dir/key-live.pem" },
]
min_version = "$min_version"
client_ca = "$ca"

[gateway]
url = "http://127.0.0.1:$backend"
protocol = "generic"
probe = "$probe"
probe_interval = "$every"
probe_interval_ready = "$every_ready"
connect_timeout = "$connect"

[[route]]
path = "/held"
url = "http://127.0.0.1:$held_by"
protocol = "openclaw"
probe = "auto"
resume = "replay"

[[route]]
path = "/moving"
url = "http://127.0.0.1:$moved"
protocol = "openclaw"
probe = "auto"
resume = "replay"

$unused
[hold]
max = "$max"
upgrade = "$upgrade"
handshake = "$handshake"
notice_after = "$notice_after"
notice_every = "$notice_every"
buffer = "$buffer"
buffer_total = "$buffer_total"
resume = "$resume"
resume_rate = $rate
unfinished_handshakes = $unfinished
unfinished_per_ip = $unfinished_ip
replay_requests = "$replay"

[http]
hold = "$http_hold"
page_after = "$page_after"

[limits]
sessions = $sessions_most
sessions_per_ip = $sessions_ip
handshakes_per_ip = "$handshakes"
header_timeout = "$header_timeout"
tls_timeout = "$tls_timeout"
frame = "$frame"
preauth_frame = "$preauth"
ping_every = "$ping"
origins = ["https://load.example.net"$origins]
drain = "$drain"
handover = "$handover"

[auth]
modes = [$modes$forward_mode]
users = [$user]
tokens = [$load_token$token]
public = ["$public"]
user_header = "$user_header"
loopback_as = "$loopback_as"
certificate_name = "$certificate_name"
session_idle = "$idle"
session_max = "$signed_in"
state_dir = "$dir/$state"

[auth.forward]
url = "$forward"
cache = "$cache"
recheck = "$recheck"
without_answer = "$without"

[admin]
listen = "127.0.0.1:$admin_port"

[log]
level = "$level"
format = "$format"
END
}

# The status says that a config was taken (or refused) since the file was written.
taken() {
    local status passed=$(((${EPOCHREALTIME/./} - written) / 1000))
    status=$(ask "$admin_port" GET /status) || return 1
    status=${status//[[:space:]]/}
    [[ $status =~ \"lastReload\":\{\"agoMs\":([0-9]+),\"refused\":([^\}]*)\} ]] || return 1
    [ "${BASH_REMATCH[1]}" -lt "$passed" ] || return 1
    [ "${BASH_REMATCH[2]}" = null ] || { echo "refused: ${BASH_REMATCH[2]}" >&2; exit 1; }
}

apply() {
    local answer before=$admin_port
    written=${EPOCHREALTIME/./}
    local how=$((n % 7))
    # Ways to sign in that go are not taken without a word.
    case $((n % groups)) in 0 | 21) how=asked ;; esac
    case $how in
        3)
            kill -HUP "$(<"$dir/pid-holdline")"
            until_it taken
            ;;
        6) until_it taken ;;
        *)
            # It is asked where the config before this one says.
            n=$((n - 1))
            either before 20 "$admin" "$admin_b"
            answer=$(ask "$before" POST /reload)
            [[ $answer == 'HTTP/1.1 200 '* ]] || { echo "$answer" >&2; exit 1; }
            grep -oP '"key": "\K[^"]*' <<<"$answer" || true
            ;;
    esac
}
