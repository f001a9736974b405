// The official client, signing with its device key, while the gateway restarts
// in each of the ways it knows. It cannot be resumed without its own help (the
// signature covers a nonce of the new gateway), so one disconnect is the best
// there is. Proves: it comes no earlier than the gateway is starting again, no
// attempt fails, every request is answered in words, and the client is usable
// at once when the gateway is.

import { Client, RequestLoop } from "../lib/client.mjs";
import { figures, reconnectFloor, restarts, throughOutage } from "../lib/outage.mjs";
import { pause } from "../lib/time.mjs";

export const scenarios = [
  { name: "official-term", quick: true, compare: true, run: (stage) => restart(stage, restarts.term) },
  { name: "official-kill", quick: true, compare: true, run: (stage) => restart(stage, restarts.kill) },
  { name: "official-in-process", compare: true, run: (stage) => restart(stage, restarts.inProcess) },
];

async function restart({ gateway, road, report }, fault) {
  const client = await new Client(road).connected();
  const loop = new RequestLoop(client);
  await pause(1000); // some ordinary traffic, so that the outage meets requests in flight

  const outage = await throughOutage(gateway, loop, fault);
  const requests = await loop.settle();
  const row = { ...figures(client, loop, outage), requests };
  report.row(road.name, row);
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);

  report.check("one disconnect", row.disconnects === 1, `${row.disconnects}`);
  report.check("not before the gateway is starting", row.closedVsStarting >= -50, `${row.closedVsStarting?.toFixed(0)} ms after`);
  report.check("no failed attempt", row.failed === 0, client.failures.map(({ reason }) => reason).join("; "));
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check("requests during the outage were refused in words", requests.explicit > 0, `${requests.explicit}`);
  const unclear = loop.entries.filter(({ outcome, error }) => outcome === "explicit" && !clear(error)).map(({ error }) => error.message);
  report.check("every refusal says whether to send it again", unclear.length === 0, unclear.join("; "));
  report.within("usable after ready", row.usable, 300, reconnectFloor(outage));
  await client.stop();
}

/** Either it did not run and may be sent again, or nobody knows, and that is said. */
function clear(error) {
  if (error.details?.execution === "may_have_executed") return true;
  if (error.retryable === true && Number.isFinite(error.retryAfterMs)) return true;
  // The gateway's own last words to a request that it had already taken.
  return error.message.endsWith("Gateway request entry is closed");
}
