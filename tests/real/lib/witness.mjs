// Somebody at the gateway's own door, who speaks to it as a proxy would: says
// what the gateway itself knows, whatever became of the proxy that is tested.
// And a bare client at a proxy's door, for the things that no client should say.

import { request as httpsRequest } from "node:https";
import { connect } from "node:tls";
import { WebSocket as PlainWebSocket } from "ws";

import { atEnd } from "./cleanup.mjs";
import { gatewayPort, tlsPort, userHeader, witness } from "./settings.mjs";
import { now, until } from "./time.mjs";

const authority = `127.0.0.1:${tlsPort}`;

/** Only while the gateway is in trusted-proxy mode, and ready. */
export function askedDirectly(client = commandLine) {
  return new Bare(`ws://127.0.0.1:${gatewayPort}/`, {
    headers: {
      origin: `https://${authority}`,
      "x-forwarded-for": "198.51.100.7",
      "x-forwarded-proto": "https",
      "x-forwarded-host": authority,
      [userHeader]: witness.name,
    },
    client,
  }).connected();
}

/** How the two programs of people introduce themselves. */
export const commandLine = { id: "cli", mode: "cli", version: "1.0.0", platform: "linux" };
export const controlUi = { id: "openclaw-control-ui", mode: "webchat", version: "1.0.0", platform: "linux" };

/**
 * A client that signs nothing, over `ws` (HTTP/1.1) or, with `h2`, the runtime's own WebSocket
 * (HTTP/2). `rewrite` may change the bytes of the upgrade before they are sent.
 */
export class Bare {
  events = [];
  hello;
  /** Why there is no connection: `{ status }` of the upgrade, or `{ error }` in the gateway's shape. */
  refused;
  #socket;
  #client;
  #number = 0;
  #waiting = new Map();

  constructor(url, { headers = {}, h2 = false, rewrite, client = commandLine } = {}) {
    this.#client = client;
    const createConnection = rewrite && ((options) => rewriting(rewrite, options));
    this.#socket = h2 ? new WebSocket(url, { headers }) : new PlainWebSocket(url, { headers, rejectUnauthorized: false, createConnection });
    this.#socket.onmessage = ({ data }) => this.#read(JSON.parse(data));
    this.#socket.onerror = (event) => (this.refused ??= { error: { message: event.message ?? String(event.error ?? event.type) } });
    this.#socket.onclose = ({ code, reason }) => this.#end(`closed ${code} ${reason}`);
    if (!h2) {
      this.#socket.once("unexpected-response", (request, { statusCode }) => {
        this.refused = { status: statusCode };
        request.destroy();
        this.#end(`HTTP ${statusCode}`);
      });
    }
    this.stop = atEnd(() => this.#socket.close());
  }

  #read(frame) {
    if (frame.event === "connect.challenge") void this.#connect();
    else if (frame.type === "event") this.events.push({ at: now(), ...frame });
    else {
      this.#waiting.get(frame.id)?.(frame);
      this.#waiting.delete(frame.id);
    }
  }

  async #connect() {
    const introduction = { minProtocol: 4, maxProtocol: 4, client: this.#client, role: "operator", caps: [] };
    const scopes = ["operator.admin", "operator.read", "operator.write"];
    const { ok, payload, error } = await this.#ask("connect", { ...introduction, scopes });
    if (ok) this.hello = payload;
    else this.refused ??= { error };
  }

  #ask(method, params) {
    return new Promise((resolve) => {
      this.#number += 1;
      const id = String(this.#number);
      this.#waiting.set(id, resolve);
      this.#socket.send(JSON.stringify({ type: "req", id, method, params }));
    });
  }

  #end(message) {
    this.refused ??= { error: { message } };
    for (const resolve of this.#waiting.values()) resolve({ ok: false, error: { message } });
    this.#waiting.clear();
  }

  async connected() {
    await this.settled();
    if (!this.hello) throw new Error(`no hello: ${JSON.stringify(this.refused)}`);
    return this;
  }

  /** Waits until it is in, or knows that it will not be. */
  async settled() {
    await until("an answer to a bare client", () => this.hello ?? this.refused, { within: 30_000 });
    return this;
  }

  async request(method, params = {}) {
    const { ok, payload, error } = await this.#ask(method, params);
    if (!ok) throw new Error(`${method}: ${error.message}`);
    return payload;
  }

  /** Who the gateway takes this connection for. */
  async identity() {
    const { profile } = await this.request("users.self");
    return profile?.emails?.[0] ?? profile?.displayName;
  }
}

/** A connection whose first bytes are changed on the way out. */
function rewriting(rewrite, { host, port }) {
  const socket = connect({ host, port, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] });
  const { write } = socket;
  socket.write = (head, ...rest) => {
    socket.write = write;
    return socket.write(Buffer.from(rewrite(head.toString("latin1")), "latin1"), ...rest.filter((argument) => typeof argument === "function"));
  };
  return socket;
}

/** One plain request at a proxy's door: `{ status, headers, body }`. */
export function fetchPlain(url, { method = "GET", headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(url, { method, headers, agent: false, rejectUnauthorized: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => (text += part));
      response.once("end", () => resolve({ status: response.statusCode, headers: response.headers, body: text }));
    });
    request.once("error", reject);
    request.end(body);
  });
}
