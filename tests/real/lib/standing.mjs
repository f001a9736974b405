// What a session has at the gateway beyond its socket: what it may do, and what
// it is told. Both are lost with the gateway's process; whoever puts a session
// back has to restore both.

import { randomUUID } from "node:crypto";

import { now, until } from "./time.mjs";
import { askedDirectly } from "./witness.mjs";

/** One request for each scope that an operator has, with what it needs. */
const PROBES = {
  "operator.read": ["sessions.list", {}],
  "operator.write": ["sessions.create", { displayName: "made afterwards" }],
  "operator.admin": ["cron.list", { limit: 1 }],
  "operator.approvals": ["exec.approval.list", {}],
  "operator.questions": ["question.list", {}],
  "operator.pairing": ["device.pair.list", {}],
};

/** Of the scopes that were granted, those without which it is refused now. */
export async function lostScopes(client, scopes) {
  const lost = [];
  for (const scope of scopes.filter((scope) => PROBES[scope])) {
    const refused = await client.request(...PROBES[scope]).then(() => undefined, (error) => error.message);
    if (refused) lost.push(`${scope}: ${refused}`);
  }
  return lost;
}

/** A session with a chat of its own, for others to listen to. */
export async function newTalk() {
  const witness = await askedDirectly();
  const { key } = await witness.request("sessions.create", { displayName: `talk ${randomUUID().slice(0, 8)}` });
  witness.stop();
  return key;
}

/** Of the two that were subscribed to, the sessions and this chat, those that are not heard any more. */
export async function lostSubscriptions(client, talk) {
  const heard = { sessions: await hearsOfNewSession(client), "the chat": await hearsWhatIsSaid(client, talk) };
  return Object.keys(heard).filter((what) => !heard[what]);
}

/** Somebody else makes a session: does the subscriber hear of it? */
async function hearsOfNewSession(client) {
  const since = now();
  const key = await newTalk();
  return hears(() => client.events.some(({ at, event, payload }) => at > since && event === "sessions.changed" && payload?.sessionKey === key));
}

/** Somebody else says something in this chat: does the subscriber hear it? */
async function hearsWhatIsSaid(client, key) {
  const text = `said ${randomUUID().slice(0, 8)}`;
  const witness = await askedDirectly();
  await witness.request("chat.send", { sessionKey: key, message: text, idempotencyKey: randomUUID() });
  const heard = await hears(() => client.events.some(({ event, payload }) => event === "session.message" && JSON.stringify(payload).includes(text)));
  witness.stop();
  return heard;
}

/** How often this was said in this chat, as the gateway itself has it. */
export async function timesSaid(key, text) {
  const witness = await askedDirectly();
  const { messages = [], pendingInputs } = await witness.request("chat.history", { sessionKey: key });
  witness.stop();
  const said = [...messages, ...(pendingInputs?.items ?? []).map(({ message }) => message)];
  return said.filter(({ role, content }) => role === "user" && JSON.stringify(content).includes(text)).length;
}

/** A gateway that has just started is slow to say what happened. */
const hears = (condition) => until("the event", condition, { within: 60_000 }).catch(() => false);
