// openclaw-node with the same ledger as the official client's.

import { join } from "node:path";
import { OpenClawClient } from "openclaw-node";

import { atEnd } from "./cleanup.mjs";
import { token } from "./settings.mjs";
import { now, until } from "./time.mjs";

export class NodeClient {
  hellos = [];
  disconnects = [];
  failures = [];
  events = [];
  #client;
  #stop;

  constructor(road, directory) {
    this.#client = new OpenClawClient({
      url: road.wsUrl,
      token,
      scopes: ["operator.admin", "operator.read", "operator.write"],
      deviceIdentityPath: join(directory, "node-device.json"),
    });
    this.#client.on("connected", (hello) => this.hellos.push({ at: now(), hello }));
    this.#client.on("disconnected", ({ reason }) => this.disconnects.push({ at: now(), reason }));
    this.#client.on("error", (error) => this.failures.push({ at: now(), reason: error.message ?? String(error) }));
    this.#client.on("event", (event) => this.events.push({ at: now(), ...event }));
    this.#stop = atEnd(() => this.#client.disconnect());
    this.#client.connect().catch((error) => this.failures.push({ at: now(), reason: error.message }));
  }

  get failedAttempts() {
    return this.failures.length;
  }

  async connected() {
    await until("openclaw-node's hello", () => this.hellos.length > 0, { within: 30_000 });
    return this;
  }

  request(method, params) {
    return this.#client.request(method, params);
  }

  /** This client throws plain errors; only their words tell what happened. */
  outcome(error) {
    if (error.message === "Not connected to OpenClaw Gateway") return "local";
    if (/timed out$|^Not connected to OpenClaw Gateway: /.test(error.message)) return "silent";
    return "explicit";
  }

  stop() {
    return this.#stop();
  }
}
