# nginx: a signal to its master. Old workers keep their sessions for as long as these last
# (worker_shutdown_timeout is not set).
# shellcheck shell=bash disable=SC2154,SC2034

groups=5

config() {
    either connections 1 "$files" "$((files - 1000))"
    either header 2 '' 'add_header X-Turn on always;'
    either pair 3 a b
    either also_listen 4 "listen 127.0.0.1:$also_port ssl backlog=4096;" ''
    either timeout 5 5s 7s
    write "$dir/nginx.conf" <<END
worker_processes auto;
worker_rlimit_nofile $files;
daemon off;
pid $dir/nginx.pid;
error_log $dir/nginx.log warn;

events {
    worker_connections $connections;
    multi_accept on;
}

http {
    access_log off;
    client_body_temp_path $dir/nginx-body;
    proxy_temp_path $dir/nginx-proxy;
    fastcgi_temp_path $dir/nginx-fastcgi;
    uwsgi_temp_path $dir/nginx-uwsgi;
    scgi_temp_path $dir/nginx-scgi;

    map \$http_upgrade \$connection_upgrade {
        default upgrade;
        ''      close;
    }

    server {
        listen 127.0.0.1:$port ssl backlog=4096;
        $also_listen
        ssl_certificate $dir/cert-$pair.pem;
        ssl_certificate_key $dir/key-$pair.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_buffer_size 4k;
        tcp_nodelay on;
        $header

        location / {
            proxy_pass http://127.0.0.1:$backend;
            proxy_http_version 1.1;
            proxy_set_header Host \$host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_upgrade;
            proxy_buffer_size 4k;
            proxy_connect_timeout $timeout;
            proxy_read_timeout 24h;
            proxy_send_timeout 24h;
        }
    }

    server {
        listen 127.0.0.1:$turn_port;
        location = /turn { return 200 "turn $n."; }
    }
}
END
}

apply() {
    kill -HUP "$(<"$dir/nginx.pid")"
    until_it says_so
}
