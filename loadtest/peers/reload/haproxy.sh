# HAProxy: master and workers (-W), reloaded by a signal to the master, listening sockets handed
# over. Old workers keep their sessions for as long as these last (hard-stop-after is not set).
# shellcheck shell=bash disable=SC2154,SC2034

groups=5

config() {
    either connections 1 "$most" "$((most - 500))"
    either header 2 '' 'http-response set-header X-Turn on'
    either pair 3 a b
    either also_bind 4 "bind 127.0.0.1:$also_port ssl crt $dir/both-$pair.pem alpn http/1.1 backlog 4096" ''
    either timeout 5 5s 7s
    write "$dir/haproxy.cfg" <<END
global
    maxconn $connections
    nbthread $(nproc)
    stats socket $dir/haproxy.sock mode 600 level admin expose-fd listeners
    ssl-default-bind-options ssl-min-ver TLSv1.2
    tune.bufsize 16384

defaults
    mode http
    timeout connect $timeout
    timeout client 24h
    timeout server 24h
    timeout tunnel 24h
    timeout http-request 15s
    option http-no-delay

frontend public
    bind 127.0.0.1:$port ssl crt $dir/both-$pair.pem alpn http/1.1 backlog 4096
    $also_bind
    $header
    default_backend gateway

frontend turns
    bind 127.0.0.1:$turn_port
    http-request return status 200 content-type text/plain string "turn $n."

backend gateway
    server gateway 127.0.0.1:$backend maxconn $most
END
}

apply() {
    kill -USR2 "$(<"$dir/pid-haproxy")"
    until_it says_so
}
