// The official client with a ledger: everything its owner would hear of.

import { GatewayClient } from "@openclaw/gateway-client";

import { atEnd } from "./cleanup.mjs";
import { deviceSigning, newDevice } from "./device.mjs";
import { person, token } from "./settings.mjs";
import { now, until } from "./time.mjs";

const SCOPES = ["operator.admin", "operator.read", "operator.write"];

export class Client {
  hellos = [];
  disconnects = [];
  failures = [];
  events = [];
  gaps = [];
  #client;
  #stop;

  /**
   * `device: false` makes the same-host automation client that signs nothing; a
   * device of `newDevice` can come again. Where the road itself asks who comes
   * in, it is shown the token of somebody (`as`), and the gateway's secret is not known.
   */
  constructor(road, { device = true, name = "gateway-client", mode = "backend", as = person.name } = {}) {
    const bearer = road.edge?.bearers[as];
    this.#client = new GatewayClient({
      url: road.wsUrl,
      tlsFingerprint: road.fingerprint,
      ...(bearer ? { edgeAuthHeaders: { authorization: `Bearer ${bearer}` } } : { token }),
      role: "operator",
      scopes: SCOPES,
      clientName: name,
      clientVersion: "1.0.0",
      mode,
      deviceIdentity: device === true ? newDevice() : device || null,
      hostDeps: deviceSigning,
      onHelloOk: (hello) => this.hellos.push({ at: now(), hello }),
      onClose: (code, reason, info) => {
        const entry = { at: now(), code, reason };
        (info?.phase === "pre-hello" ? this.failures : this.disconnects).push(entry);
      },
      onConnectError: (error) => this.failures.push({ at: now(), reason: error.message, reported: true }),
      onEvent: (event) => this.events.push({ at: now(), ...event }),
      onGap: (gap) => this.gaps.push({ at: now(), ...gap }),
    });
    this.#stop = atEnd(() => this.#client.stopAndWait().catch(() => {}));
    this.#client.start();
  }

  /** Attempts that failed in a way the owner heard of: an error is followed by a close, which counts once. */
  get failedAttempts() {
    const reported = this.failures.filter((failure) => failure.reported).length;
    return Math.max(reported, this.failures.length - reported);
  }

  async connected(within = 30_000) {
    await until("the client's hello", () => this.hellos.length > 0, { within });
    return this;
  }

  request(method, params = {}, options) {
    return this.#client.request(method, params, options);
  }

  outcome(error) {
    return outcomeOf(error);
  }

  eventsNamed(name) {
    return this.events.filter((event) => event.event === name);
  }

  stop() {
    return this.#stop();
  }
}

/**
 * How a request ended, from its sender's point of view.
 * ok: answered; explicit: the other side said no, in a frame; local: the
 * client itself would not send it, being disconnected; silent: sent, and never
 * answered (the connection died under it, or the client gave up).
 */
export function outcomeOf(error) {
  if (error === undefined) return "ok";
  if (error.name === "GatewayClientRequestError") return "explicit";
  if (error.message === "gateway not connected") return "local";
  return "silent";
}

/**
 * Sends one read-only request every `period` milliseconds and keeps the books.
 * One that costs the gateway nothing: `sessions.list` takes it more than a
 * second right after a start, and that is not what is measured here.
 */
export class RequestLoop {
  entries = [];
  #timer;
  #client;

  constructor(client, { method = "last-heartbeat", params = {}, period = 100 } = {}) {
    this.#client = client;
    const send = () => {
      const entry = { sent: now(), outcome: undefined };
      this.entries.push(entry);
      client.request(method, params).then(
        () => Object.assign(entry, { at: now(), outcome: "ok" }),
        (error) => Object.assign(entry, { at: now(), outcome: client.outcome(error), error }),
      );
    };
    send();
    this.#timer = setInterval(send, period);
    this.#end = atEnd(() => clearInterval(this.#timer));
  }
  #end;

  /** Stops sending and waits until every request that was sent has ended. */
  async settle() {
    await this.#end();
    await until("the last requests to end", () => this.entries.every((entry) => entry.outcome), { within: 40_000 });
    return this.count();
  }

  count() {
    const sum = { ok: 0, explicit: 0, local: 0, silent: 0, waiting: 0 };
    for (const entry of this.entries) sum[entry.outcome ?? "waiting"] += 1;
    return sum;
  }

  /** The first answer "ok" that arrived after `moment`. */
  firstOkAfter(moment) {
    return this.entries.filter((entry) => entry.outcome === "ok" && entry.at > moment).reduce(earlier, undefined)?.at;
  }

  lastOkBefore(moment) {
    const at = this.entries.filter((entry) => entry.outcome === "ok" && entry.at <= moment).map((entry) => entry.at);
    return at.length ? Math.max(...at) : undefined;
  }

  /** The distinct reasons that explicit refusals gave, with how often. */
  reasons() {
    const found = new Map();
    for (const { outcome, error } of this.entries) {
      if (outcome !== "explicit" && outcome !== "silent") continue;
      const key = outcome === "silent" || !error.gatewayCode ? error.message : `${error.gatewayCode}/${error.details?.reason ?? error.message}/${error.details?.execution ?? "-"}`;
      found.set(key, (found.get(key) ?? 0) + 1);
    }
    return Object.fromEntries(found);
  }
}

const earlier = (best, entry) => (best === undefined || entry.at < best.at ? entry : best);
