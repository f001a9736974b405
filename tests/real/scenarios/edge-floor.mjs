// Nobody in between: how long after it is ready the gateway itself takes for the
// handshake and the first answer of somebody who is at its door that very
// moment and has nothing to restore. "usable" of the other scenarios is to be read
// beside these figures; they are measured, not judged.

import { watchOutage } from "../lib/gateway.mjs";
import { ordeals } from "../lib/outage.mjs";
import { now } from "../lib/time.mjs";
import { askedDirectly, commandLine, controlUi } from "../lib/witness.mjs";

const kinds = { cli: commandLine, page: controlUi };

export const scenarios = Object.entries(kinds).flatMap(([kind, client]) =>
  ["term", "kill", "in-process"].map((fault) => ({
    gateway: "trusted-proxy",
    name: `edge-floor-${kind}-${fault}`,
    quick: kind === "page" && fault === "kill",
    run: (stage) => atTheDoor(stage, client, ordeals[fault][0]),
  })),
);

async function atTheDoor({ gateway, report }, client, fault) {
  const outage = watchOutage();
  await fault(gateway);
  await outage.over;
  const first = await askedDirectly(client);
  const hello = now();
  await first.request("last-heartbeat");
  const answer = now();
  first.stop();
  report.row("nobody", { usable: answer - outage.ready, remarks: `hello ${Math.round(hello - outage.ready)} ms` });
  report.check("it answers", answer > outage.ready);
}
