// The roads to the gateway that can be compared: holdline, two usual proxies,
// and none at all.

import { execFileSync, spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, openSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { connect } from "node:tls";

import { atEnd, killGroup } from "./cleanup.mjs";
import { authSection } from "./edge.mjs";
import { openTap } from "./tap.mjs";
import { adminPort, gatewayPort, holdline, tlsPort } from "./settings.mjs";
import { until } from "./time.mjs";

export const roadNames = ["holdline", "caddy", "caddy-retry", "nginx", "direct"];

export async function openRoad(name, directory, options) {
  const open = roads[name];
  if (!open) throw new Error(`no road is named ${name}; there are ${roadNames.join(", ")}`);
  const road = await open(join(directory, name), options ?? {});
  return { name, ...road };
}

const roads = { holdline: throughHoldline, caddy: throughCaddy, "caddy-retry": throughPatientCaddy, nginx: throughNginx, direct };

function direct() {
  const url = `http://127.0.0.1:${gatewayPort}`;
  return { pageUrl: url, wsUrl: `ws://127.0.0.1:${gatewayPort}`, fingerprint: undefined, close: async () => {} };
}

async function throughHoldline(directory, { hold = {}, tapped = false, auth = false, behind = false }) {
  try {
    accessSync(holdline, constants.X_OK);
  } catch {
    throw new Error(`${holdline} is not there: build it (cargo build --release) or set HOLDLINE_BIN`);
  }
  mkdirSync(directory, { recursive: true });
  const tap = tapped ? await openTap() : undefined;
  const config = join(directory, "holdline.toml");
  const edge = auth ? authSection(directory) : undefined;
  const holdLines = Object.entries(hold).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  writeFileSync(
    config,
    [
      "[listen]",
      `https = ["127.0.0.1:${tlsPort}"]`,
      ...(behind ? ['trusted_proxies = ["127.0.0.1/32"]'] : []),
      "[gateway]",
      `url = "http://127.0.0.1:${tap?.port ?? gatewayPort}"`,
      "[hold]",
      ...holdLines,
      ...(edge?.lines ?? []),
      "[admin]",
      `listen = "127.0.0.1:${adminPort}"`,
      "[log]",
      'format = "json"',
      "",
    ].join("\n"),
  );
  // The development certificate is made in certs-dev/ of the working directory.
  const close = launch(directory, holdline, ["run", "--config", config]);
  await until("holdline to be ready", () => httpOk(adminPort, "/readyz"), { within: 15_000, every: 25 });
  return { ...(await tlsRoad(() => close().then(tap?.close))), tap, edge };
}

function throughCaddy(directory) {
  return caddy(directory, "");
}

/** The strongest setting that Caddy has for this: requests wait for the gateway. */
function throughPatientCaddy(directory) {
  return caddy(directory, "lb_try_duration 60s\n    lb_try_interval 250ms");
}

async function caddy(directory, retry) {
  mkdirSync(directory, { recursive: true });
  const { certificate, key } = selfSigned(directory);
  const config = join(directory, "Caddyfile");
  // Without the three header lines the gateway refuses every request of a
  // local client, because Caddy reports 127.0.0.1 as a forwarded address.
  writeFileSync(
    config,
    `{
  admin off
  auto_https off
  storage file_system ${directory}/storage
}
https://127.0.0.1:${tlsPort}, https://localhost:${tlsPort} {
  bind 127.0.0.1
  tls ${certificate} ${key}
  reverse_proxy 127.0.0.1:${gatewayPort} {
    header_up -X-Forwarded-For
    header_up -X-Forwarded-Proto
    header_up -X-Forwarded-Host
    ${retry}
  }
}
`,
  );
  const close = launch(directory, "caddy", ["run", "--adapter", "caddyfile", "--config", config]);
  await until("caddy to listen", certificateFingerprint, { within: 15_000, every: 25 });
  return tlsRoad(close);
}

async function throughNginx(directory) {
  mkdirSync(join(directory, "logs"), { recursive: true });
  const { certificate, key } = selfSigned(directory);
  const config = join(directory, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  writeFileSync(
    config,
    `daemon off;
user root;
worker_processes 1;
pid ${directory}/nginx.pid;
error_log ${directory}/logs/error.log;
events { worker_connections 512; }
http {
  access_log off;
  ${temporary.map((kind) => `${kind}_temp_path ${directory}/${kind};`).join("\n  ")}
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  server {
    listen 127.0.0.1:${tlsPort} ssl;
    ssl_certificate ${certificate};
    ssl_certificate_key ${key};
    location / {
      proxy_pass http://127.0.0.1:${gatewayPort};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }
  }
}
`,
  );
  const close = launch(directory, "nginx", ["-p", directory, "-c", config]);
  await until("nginx to listen", certificateFingerprint, { within: 15_000, every: 25 });
  return tlsRoad(close);
}

async function tlsRoad(close) {
  const fingerprint = await until("a certificate", certificateFingerprint, { within: 5_000, every: 25 });
  return {
    pageUrl: `https://127.0.0.1:${tlsPort}`,
    wsUrl: `wss://127.0.0.1:${tlsPort}`,
    fingerprint,
    close,
  };
}

function launch(directory, program, args) {
  const log = openSync(join(directory, "output.log"), "a");
  const child = spawn(program, args, { cwd: directory, stdio: ["ignore", log, log], detached: true });
  let failed;
  child.once("error", (error) => (failed = error));
  const gone = new Promise((resolve) => child.once("exit", resolve));
  return atEnd(async () => {
    if (failed) throw failed;
    killGroup(child.pid);
    await gone;
  });
}

function selfSigned(directory) {
  const certificate = join(directory, "certificate.pem");
  const key = join(directory, "key.pem");
  execFileSync("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split(" "),
    ..."-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout".split(" "),
    key,
    "-out",
    certificate,
  ], { stdio: "ignore" });
  return { certificate, key };
}

/** What the official client pins: nobody here trusts a public authority. */
function certificateFingerprint() {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port: tlsPort, servername: "localhost", rejectUnauthorized: false });
    socket.once("secureConnect", () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.once("error", () => resolve(undefined));
  });
}

function httpOk(port, path) {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: 2000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(false));
  });
}
