// The gateway in trusted-proxy mode, holdline decides who comes in: the official
// client with a token of its own, with a device key and without, and as the
// command line introduces itself. Proves: whatever restart, its session goes on
// on its own socket, with all it may do and all it listens to, and its owner is
// told, once per outage, that events were missed. And where the device may do
// more than its person, nothing is lost behind anybody's back: the client comes
// again, with its own signature.

import { Client, RequestLoop } from "../lib/client.mjs";
import { newDevice } from "../lib/device.mjs";
import { figuresOfAll, ordeals, reconnectFloor, restarts, throughAll } from "../lib/outage.mjs";
import { reader } from "../lib/settings.mjs";
import { lostScopes, lostSubscriptions, newTalk } from "../lib/standing.mjs";
import { pause, until } from "../lib/time.mjs";
import { askedDirectly } from "../lib/witness.mjs";

const edge = { gateway: "trusted-proxy", road: { auth: true } };
const clients = {
  "official-device": { device: true },
  "official-nodevice": { device: false },
  cli: { device: false, name: "cli", mode: "cli" },
};
const quick = ["edge-official-device-kill", "edge-cli-term"];

export const scenarios = [
  ...Object.entries(clients).flatMap(([who, options]) =>
    Object.entries(ordeals).map(([ordeal, faults]) => {
      const name = `edge-${who}-${ordeal}`;
      return { ...edge, name, quick: quick.includes(name), run: (stage) => live(stage, options, faults) };
    }),
  ),
  { ...edge, name: "edge-official-lesser", run: lesser },
];

async function live({ gateway, road, report }, options, faults) {
  const device = options.device && (await pairedDevice(road));
  const client = await new Client(road, { ...options, device }).connected();
  const { scopes } = client.hellos[0].hello.auth;
  const talk = await newTalk();
  await client.request("sessions.subscribe", {});
  await client.request("sessions.messages.subscribe", { key: talk });
  const loop = new RequestLoop(client);
  await pause(1000); // some ordinary traffic, so that the outage meets requests in flight

  const outages = await throughAll(gateway, loop, faults);
  const requests = await loop.settle();
  const row = { ...figuresOfAll(client, loop, outages), requests };
  const lost = await lostScopes(client, scopes);
  const deaf = await lostSubscriptions(client, talk);
  report.row(road.name, { ...row, remarks: `${client.gaps.length} gaps` });
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);

  report.check("no disconnect", row.disconnects === 0, client.disconnects.map(({ code, reason }) => `${code} ${reason}`).join("; "));
  report.check("no failed attempt", row.failed === 0, client.failures.map(({ reason }) => reason).join("; "));
  report.check("one handshake", client.hellos.length === 1, `${client.hellos.length}`);
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check("it may do what it might before", lost.length === 0, lost.join("; "));
  report.check("its subscriptions are alive", deaf.length === 0, deaf.join());
  report.check("told once per outage that events were missed", client.gaps.length === outages.length, `${client.gaps.length} of ${outages.length}`);
  report.check("told of each way down", outages.every(({ fault, ready }) => heardBetween(client, "gateway.down", fault, ready)));
  report.check("told of each return", client.eventsNamed("gateway.up").length >= outages.length, `${client.eventsNamed("gateway.up").length}`);
  report.within("usable after ready", row.usable, 200);
  await client.stop();
}

const heardBetween = (client, name, from, to) => client.eventsNamed(name).some(({ at }) => at >= from && at <= to);

/** A device that may do more than the person who uses it now. */
async function lesser({ gateway, road, report }) {
  const device = await pairedDevice(road);
  const client = await new Client(road, { device, as: reader.name }).connected();
  const { scopes } = client.hellos[0].hello.auth;
  report.check("the device may write, though its person may not", scopes.includes("operator.write"), scopes.join());
  await client.request("sessions.subscribe", {});
  const loop = new RequestLoop(client);
  await pause(1000);

  const outages = await throughAll(gateway, loop, [restarts.kill]);
  const requests = await loop.settle();
  const row = { ...figuresOfAll(client, loop, outages), requests };
  const lost = await lostScopes(client, scopes);
  report.row(road.name, row);
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);
  report.check("one disconnect", row.disconnects === 1, `${row.disconnects}`);
  report.check("no failed attempt", row.failed === 0, client.failures.map(({ reason }) => reason).join("; "));
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check("it may do what it might before", lost.length === 0, lost.join("; "));
  // It is known only when the gateway has answered; then the client waits its second.
  report.within("usable after ready", row.usable, 300, Math.max(1000, reconnectFloor(outages[0])));
  await client.stop();
}

/** A device that somebody has approved, as it is done once for every program that signs. */
async function pairedDevice(road) {
  const device = newDevice();
  const first = new Client(road, { device });
  const witness = await askedDirectly();
  const waiting = async () => (await witness.request("device.pair.list")).pending.find(({ deviceId }) => deviceId === device.deviceId);
  const { requestId } = await until("the request to pair", waiting, { within: 15_000, every: 100 });
  await witness.request("device.pair.approve", { requestId });
  await first.stop();
  witness.stop();
  return device;
}
