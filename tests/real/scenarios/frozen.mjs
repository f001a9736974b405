// A gateway that hangs: alive, its port accepts, and nothing answers (SIGSTOP
// for 20 s). It may wake up and answer everything it was sent. Proves: nobody
// is disconnected, nothing stays without an answer, and it goes on by itself.

import { Client, RequestLoop } from "../lib/client.mjs";
import { now, pause, until } from "../lib/time.mjs";

const FROZEN = 20_000;

export const scenarios = [{ name: "official-frozen", quick: true, compare: true, run }];

async function run({ gateway, road, report }) {
  const client = await new Client(road).connected();
  const loop = new RequestLoop(client, { period: 500 });
  await pause(1000);

  const frozen = now();
  gateway.signal("SIGSTOP");
  await pause(FROZEN);
  const woken = now();
  gateway.signal("SIGCONT");
  await until("an answer after the freeze", () => loop.firstOkAfter(woken), { within: 30_000 });
  const requests = await loop.settle();

  const usable = loop.firstOkAfter(woken) - woken;
  const told = client.eventsNamed("gateway.down").find(({ at }) => at > frozen);
  report.row(road.name, {
    disconnects: client.disconnects.length,
    failed: client.failedAttempts,
    requests,
    usable,
    outage: loop.firstOkAfter(woken) - loop.lastOkBefore(frozen),
    remarks: told ? `told "${told.payload.state}" after ${((told.at - frozen) / 1000).toFixed(1)} s` : "not told",
  });
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);
  report.check("no disconnect", client.disconnects.length === 0, client.disconnects.map(({ code }) => code).join());
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check("the client was told that the gateway hangs", told?.payload.state === "hung", told?.payload.state ?? "never");
  report.within("usable after it woke", usable, 300);
  await client.stop();
}
