// Who may come in where holdline decides that: its [auth] section, made as its
// owner makes it, with the commands of the binary itself.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { holdline, person, reader } from "./settings.mjs";

/** Lines of the config, and by user's name the token that lets a program in. */
export function authSection(directory) {
  const state = join(directory, "state");
  mkdirSync(state, { mode: 0o700 });
  const user = command(["user", "add", person.name], `${person.password}\n`);
  const laptop = newToken("laptop", person.name);
  const screen = newToken("screen-in-the-hall", reader.name);
  const lines = [
    "[auth]",
    'modes = ["password", "token"]',
    `users = [${configLine(user)}]`,
    `tokens = [${laptop.line}, ${screen.line}]`,
    `state_dir = ${JSON.stringify(state)}`,
    // A quick machine knocks more often than one address may by default.
    "[limits]",
    'handshakes_per_ip = "1000/s"',
  ];
  return { lines, bearers: { [person.name]: laptop.secret, [reader.name]: screen.secret } };
}

function newToken(name, user) {
  const output = command(["token", "add", name, "--user", user], "");
  const secret = output.match(/\bhl_[\w-]+/)?.[0];
  if (!secret) throw new Error("`holdline token add` printed no token");
  return { secret, line: configLine(output) };
}

/** What is to be pasted into the config, among whatever else is said. */
function configLine(output) {
  const line = output.match(/\{ *name = .*\}/)?.[0];
  if (!line) throw new Error("no line for the config was printed");
  return line;
}

/** Its standard output; what it says to people besides is of no interest, unless it fails. */
const command = (args, input) => execFileSync(holdline, args, { input, encoding: "utf8", stdio: "pipe" });
