// Ten changes in flight when the gateway is killed, four more while it is away.
// A change whose answer was lost may or may not have happened, and only its
// sender can find out: sending it again is not for a proxy to decide, not even
// with an idempotency key, which the gateway forgets with its process. Proves:
// nothing happened twice; who was told "ok" got it; who was told `not_started`
// may safely send it again; the others were told that it may have happened.

import { randomUUID } from "node:crypto";

import { Client, outcomeOf } from "../lib/client.mjs";
import { watchOutage } from "../lib/gateway.mjs";
import { openRoad } from "../lib/roads.mjs";
import { now, pause, seconds, until } from "../lib/time.mjs";

export const scenarios = [
  { name: "mutations-official", quick: true, compare: true, run: (stage) => mutations(stage, { device: true }) },
  { name: "mutations-backend", quick: true, compare: true, run: (stage) => mutations(stage, { device: false }) },
  { name: "mutations-long-outage", quick: true, run: (stage) => mutations(stage, { device: false, away: 32_000 }) },
  { name: "mutations-unanswered", quick: true, road: { tapped: true }, run: unanswered },
];

/** When the third of ten is answered, some have happened, some are under way, some are unread. */
const ANSWERED_BEFORE_KILL = 3;
/** What waits longer than about 25 s is given back before its sender gives up. */
const WAITED_FOR = 23_000;

async function mutations({ gateway, road, report, directory }, { device, away = 0 }) {
  const client = await new Client(road, { device }).connected();
  const run = randomUUID().slice(0, 8);
  const sent = [];
  const send = (count, when) => {
    for (let number = 0; number < count; number += 1) sent.push(change(client, `${run}-${when}-${number}`, number));
  };

  send(10, "in-flight");
  await until("some answers", () => sent.filter(({ outcome }) => outcome).length >= ANSWERED_BEFORE_KILL, { within: 20_000, every: 1 });
  const outage = watchOutage();
  const killed = now();
  await gateway.end("SIGKILL");
  await until("the loss to be noticed", () => outage.down, { within: 5_000 });
  send(4, "away");
  const asked = now();
  // Longer than the half minute that the client itself waits for an answer.
  await pause(away);
  gateway.start();
  await outage.over;
  const waiting = now() - asked;
  await until("every change to be answered", () => sent.every(({ outcome }) => outcome), { within: 40_000 });

  const happened = await count(directory, sent);
  const told = { ok: 0, not_started: 0, may_have_executed: 0, local: 0, silent: 0, unclear: 0 };
  for (const item of sent) {
    item.told = whatWasTold(item);
    told[item.told] += 1;
  }
  const bad = (condition) => sent.filter(condition).map(({ label, told: word }) => `${label}: ${word}, happened ${happened.get(label)} times`).join("; ");

  report.row(road.name, {
    disconnects: client.disconnects.length,
    failed: client.failedAttempts,
    requests: { ok: told.ok, explicit: told.not_started + told.may_have_executed + told.unclear, local: told.local, silent: told.silent },
    remarks: `${told.not_started} not_started, ${told.may_have_executed} may_have_executed, of these happened ${sent.filter(({ label, told: word }) => word === "may_have_executed" && happened.get(label) > 0).length}`,
  });
  report.note(sent.map(({ label, told: word, error }) => `${label.slice(9)} ${word}${word === "unclear" || word === "silent" ? ` ${error.message} ${JSON.stringify(error.details)}` : ""}`).join(", "));
  const twice = bad(({ label }) => happened.get(label) > 1);
  report.check("nothing happened twice", twice === "", twice);
  // What the gateway itself confirmed and then lost, because it was killed before it had written it,
  // is no doing of a proxy: worth a line, but not a verdict.
  const forgotten = bad(({ label, told: word }) => label.includes("in-flight") && word === "ok" && happened.get(label) === 0);
  if (forgotten !== "") report.note(`confirmed by the gateway before the kill, and lost by it: ${forgotten}`);
  const lost = bad(({ label, told: word }) => label.includes("away") && word === "ok" && happened.get(label) !== 1);
  report.check("what was confirmed after the outage has happened", lost === "", lost);
  const lied = bad(({ label, told: word }) => (word === "not_started" || word === "local") && happened.get(label) > 0);
  report.check("what was not started has not happened", lied === "", lied);
  report.check("no sender was left without an answer", told.silent === 0, `${told.silent}`);
  report.check("every refusal says whether it ran", told.unclear === 0, `${told.unclear}`);
  const repeated = sent.filter(({ label, method, outcome, at }) => method === "chat.send" && label.includes("in-flight") && outcome === "ok" && at > killed + 500);
  report.check("an idempotency key was not taken for permission to send again", repeated.length === 0, repeated.map(({ label }) => label).join());
  const late = bad(({ label, told: word }) => word === "silent" && label.includes("away") && happened.get(label) > 0);
  report.check("what its sender had given up was not made afterwards", late === "", late);
  if (!device && away === 0 && waiting > WAITED_FOR) {
    report.note(`the gateway itself needed ${seconds(waiting)} to start: too long for its clients' changes to wait`);
  } else if (!device && away === 0) {
    const waited = sent.filter(({ label }) => label.includes("away"));
    report.check("changes sent during the outage waited, and were made", waited.every(({ outcome }) => outcome === "ok"), waited.map(({ told: word }) => word).join());
  }
  await client.stop();
}

/**
 * The hardest case: all ten happen, the answers are lost, the gateway dies. The
 * client is one whose session is resumed on its own socket, so that whoever is
 * careless here would send all ten again.
 */
async function unanswered({ gateway, road, report, directory }) {
  const client = await new Client(road, { device: false }).connected();
  const run = randomUUID().slice(0, 8);
  road.tap.goDeaf();
  const sent = Array.from({ length: 10 }, (_, number) => change(client, `${run}-unanswered-${number}`, number));
  let happened;
  const done = async () => (happened = await count(directory, sent)) && sent.every(({ label }) => happened.get(label) > 0);
  await until("all ten to have happened", done, { within: 20_000, every: 200 });
  const outage = watchOutage();
  await gateway.end("SIGKILL");
  road.tap.hear();
  gateway.start();
  await outage.over;
  await until("every sender to be told", () => sent.every(({ outcome }) => outcome), { within: 40_000 });
  await until("the session to be live again", () => client.request("last-heartbeat").then(() => true, () => false), { within: 20_000, every: 100 });

  happened = await count(directory, sent);
  const told = sent.map(whatWasTold);
  report.row(road.name, { disconnects: client.disconnects.length, failed: client.failedAttempts, remarks: `told: ${[...new Set(told)].join(", ")}` });
  const twice = sent.filter(({ label }) => happened.get(label) !== 1).map(({ label }) => `${label}: ${happened.get(label)} times`);
  report.check("each of the ten happened once", twice.length === 0, twice.join("; "));
  report.check("each sender was told that it may have happened", told.every((word) => word === "may_have_executed"), told.join());
  report.check("no disconnect", client.disconnects.length === 0);
  await client.stop();
}

/** One change with a name of its own. Each kind makes a new thing every time it runs. */
function change(client, label, number) {
  const item = { label, outcome: undefined, at: undefined };
  const [method, params] = number >= 8 ? chatMessage(label) : number % 2 === 0 ? cronJob(label) : session(label);
  item.method = method;
  client.request(method, params).then(
    () => Object.assign(item, { at: now(), outcome: "ok" }),
    (error) => Object.assign(item, { at: now(), outcome: outcomeOf(error), error }),
  );
  return item;
}

const session = (label) => ["sessions.create", { displayName: label }];
const chatKey = (label) => `agent:main:${label}`;
/** The idempotency key is a trap: the gateway knows it only until its process ends. */
const chatMessage = (label) => ["chat.send", { sessionKey: chatKey(label), message: label, idempotencyKey: label }];
const cronJob = (label) => [
  "cron.add",
  {
    name: label,
    schedule: { kind: "cron", expr: "0 0 1 1 *" },
    sessionTarget: "main",
    wakeMode: "next-heartbeat",
    payload: { kind: "systemEvent", text: label },
  },
];

function whatWasTold({ outcome, error }) {
  if (outcome !== "explicit") return outcome;
  const execution = error.details?.execution;
  return execution === "not_started" || execution === "may_have_executed" ? execution : "unclear";
}

/** How often each change is found in the gateway's own state, asked directly. */
async function count(directory, sent) {
  const witness = await new Client(await openRoad("direct", directory), { device: false }).connected();
  const { jobs } = await witness.request("cron.list", { limit: 200 });
  const { sessions } = await witness.request("sessions.list", { limit: 500 });
  const names = [...jobs.map(({ name }) => name), ...sessions.map(({ displayName }) => displayName)];
  for (const { label } of sent.filter(({ method }) => method === "chat.send")) {
    const { messages = [], pendingInputs } = await witness.request("chat.history", { sessionKey: chatKey(label) });
    const said = [...messages, ...(pendingInputs?.items ?? []).map(({ message }) => message)];
    names.push(...said.filter(({ role, content }) => role === "user" && JSON.stringify(content).includes(label)).map(() => label));
  }
  await witness.stop();
  return new Map(sent.map(({ label }) => [label, names.filter((name) => name === label).length]));
}
