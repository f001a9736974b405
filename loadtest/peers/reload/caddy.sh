# Caddy: `caddy reload`, which returns when the config is in force. From 2.7 on it is told to let
# upgraded connections be (stream_close_delay); before, there is nothing to tell it.
# shellcheck shell=bash disable=SC2154,SC2034

groups=5

config() {
    either level 1 WARN ERROR
    either header 2 '' 'header X-Turn on'
    either pair 3 a b
    either also_site 4 ", https://127.0.0.1:$also_port, https://localhost:$also_port" ''
    either timeout 5 5s 7s
    write "$dir/Caddyfile" <<END
{
	admin 127.0.0.1:$admin
	auto_https off
	log {
		level $level
	}
}

https://127.0.0.1:$port, https://localhost:$port$also_site {
	tls $dir/cert-$pair.pem $dir/key-$pair.pem
	$header
	reverse_proxy 127.0.0.1:$backend {
		${caddy_delay:-}
		transport http {
			dial_timeout $timeout
		}
	}
}

http://:$turn_port {
	respond /turn "turn $n."
}
END
}

apply() {
    XDG_DATA_HOME=$dir XDG_CONFIG_HOME=$dir caddy reload --config "$dir/Caddyfile" \
        --adapter caddyfile --address "127.0.0.1:$admin" 2>&1 >/dev/null | grep -i '"level":"error"' >&2 || true
    until_it says_so
}
