// Same-host automation: it signs nothing, so its handshake can be said again on
// its behalf. Proves: the socket survives the restart, requests sent meanwhile
// wait and are then answered, and its subscription goes on delivering events.

import { Client, RequestLoop } from "../lib/client.mjs";
import { figures, restarts, throughOutage } from "../lib/outage.mjs";
import { openRoad } from "../lib/roads.mjs";
import { now, pause, until } from "../lib/time.mjs";

export const scenarios = [
  { name: "backend-term", compare: true, run: (stage) => restart(stage, restarts.term) },
  { name: "backend-kill", quick: true, compare: true, run: (stage) => restart(stage, restarts.kill) },
];

async function restart({ gateway, road, report, directory }, fault) {
  const client = await new Client(road, { device: false }).connected();
  await client.request("sessions.subscribe", {});
  const loop = new RequestLoop(client);
  await pause(1000);

  const outage = await throughOutage(gateway, loop, fault);
  const requests = await loop.settle();
  const row = { ...figures(client, loop, outage), requests };
  const seen = await hearsOfNewSession(client, directory);
  report.row(road.name, { ...row, remarks: seen ? "subscription alive" : "subscription lost" });
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);

  report.check("no disconnect", row.disconnects === 0, client.disconnects.map(({ code, reason }) => `${code} ${reason}`).join("; "));
  report.check("no failed attempt", row.failed === 0);
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check(
    "requests sent meanwhile waited and were answered",
    loop.entries.filter(({ sent, at, outcome }) => outcome === "ok" && sent < outage.ready && at >= outage.ready - 100).length > 3,
  );
  report.check("told of the way down", client.eventsNamed("gateway.down").length > 0 || client.eventsNamed("shutdown").length > 0);
  report.check("told of the return", client.eventsNamed("gateway.up").length > 0);
  report.check("the subscription is alive", seen);
  report.within("usable after ready", row.usable, 200);
  await client.stop();
}

/** Somebody else makes a session, straight at the gateway: does the subscriber hear of it? */
async function hearsOfNewSession(client, directory) {
  const other = await new Client(await openRoad("direct", directory), { device: false }).connected();
  const since = now();
  const { key } = await other.request("sessions.create", { displayName: "made by somebody else" });
  const heard = () => client.events.some(({ at, event, payload }) => at > since && event === "sessions.changed" && payload?.sessionKey === key);
  const seen = await until("the event", heard, { within: 5_000 }).catch(() => false);
  await other.stop();
  return seen;
}
