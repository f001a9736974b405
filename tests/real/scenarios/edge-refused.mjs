// The gateway in trusted-proxy mode believes whatever holdline says about who
// somebody is. Proves that holdline says only the truth: nobody comes in without
// a cookie or a token of its own making, none of them is good for a page of
// somebody else or after a sign-out, and nothing that a client says about itself
// reaches the gateway.

import { connect as connectHttp2 } from "node:http2";

import { Page } from "../lib/browser.mjs";
import { person, reader, token, userHeader } from "../lib/settings.mjs";
import { pause, until } from "../lib/time.mjs";
import { Bare, fetchPlain } from "../lib/witness.mjs";

const edge = { gateway: "trusted-proxy", road: { auth: true } };

export const scenarios = [
  { ...edge, name: "edge-refused", quick: true, run: refused },
  { ...edge, name: "edge-spoofed", quick: true, run: (stage) => spoofed(stage, {}) },
  // Through a load balancer that is believed: then, too, it may name an address and nothing else.
  { ...edge, road: { auth: true, behind: true }, name: "edge-spoofed-behind", quick: true, run: (stage) => spoofed(stage, { "x-forwarded-for": "198.51.100.9" }) },
  { ...edge, name: "edge-sign-in-page", quick: true, run: pictures },
];

const html = { accept: "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };

async function refused({ road, report, directory }) {
  const wsUrl = `${road.wsUrl}/`;
  const knock = async (headers, options) => {
    const client = await new Bare(wsUrl, { headers, ...options }).settled();
    const answer = client.hello ? await client.identity() : (client.refused.status ?? client.refused.error.message);
    client.stop();
    return answer;
  };
  const expect = async (what, headers, wanted) => {
    const answer = await knock(headers);
    report.check(what, answer === wanted, `${answer}`);
  };

  // Nobody.
  const load = await fetchPlain(`${road.pageUrl}/sessions?x=1`, { headers: html });
  const away = load.headers.location ?? "";
  report.check("a page load is sent to the sign-in page, and will come back", load.status === 303 && away.startsWith("/.holdline/sign-in?") && new URLSearchParams(away.split("?")[1]).get("to") === "/sessions?x=1", `${load.status} ${away}`);
  for (const path of ["/control-ui-config.json", "/sessions", "/health/../control-ui-config.json", "//control-ui-config.json", "/health%2f..%2fcontrol-ui-config.json"]) {
    const { status, body } = await fetchPlain(`${road.pageUrl}${path}`);
    report.check(`${path} of nobody is refused`, [400, 401, 403].includes(status), `${status} ${body.slice(0, 80)}`);
  }
  report.check("the public path is open", (await fetchPlain(`${road.pageUrl}/health`)).status === 200);
  await expect("an upgrade of nobody", {}, 401);
  await expect("a token that was never made", { authorization: "Bearer hl_0000000000000000000000000000000000000000000" }, 401);
  await expect("the gateway's own kind of secret", { authorization: `Bearer ${token}` }, 401);
  await expect("a name without a password", { authorization: `Basic ${Buffer.from(`${person.name}:`).toString("base64")}` }, 401);
  await expect("a good token", { authorization: `Bearer ${road.edge.bearers[person.name]}` }, person.name);

  // Somebody, with a browser.
  const page = await Page.signedIn(road, directory);
  const cookies = await page.cookies();
  const cookie = (value) => value.map(({ name, value }) => `${name}=${value}`).join("; ");
  const own = { origin: road.pageUrl };
  report.check("the cookies are for this host only, and not for scripts", cookies.every(({ httpOnly, secure, sameSite, name }) => httpOnly && secure && sameSite !== "None" && name.startsWith("__Host-")), cookies.map(({ name, sameSite }) => `${name} ${sameSite}`).join());
  await expect("the cookie from the page's own origin", { ...own, cookie: cookie(cookies) }, person.name);
  await expect("the cookie from a foreign origin", { origin: "https://evil.example", cookie: cookie(cookies) }, 403);
  await expect("the cookie from the same host, another port", { origin: "https://127.0.0.1:9443", cookie: cookie(cookies) }, 403);
  await expect("the cookie from an origin that hides", { origin: "null", cookie: cookie(cookies) }, 403);
  await expect("the cookie without an origin", { cookie: cookie(cookies) }, 403);
  const post = await fetchPlain(`${road.pageUrl}/hooks/anything`, { method: "POST", headers: { origin: "https://evil.example", cookie: cookie(cookies) }, body: "{}" });
  report.check("a form of a foreign page", post.status === 403, `${post.status}`);

  const enough = [];
  for (const one of cookies) if ((await knock({ ...own, cookie: cookie([one]) })) === person.name) enough.push(one);
  report.check("one cookie is the credential", enough.length === 1, enough.map(({ name }) => name).join());
  const others = cookies.filter((other) => !enough.includes(other));
  for (const [how, value] of Object.entries(forgeries(enough[0].value))) {
    await expect(`the cookie, ${how}`, { ...own, cookie: cookie([...others, { ...enough[0], value }]) }, 401);
  }
  for (const { name, value } of others) {
    await expect(`${name} in its place`, { ...own, cookie: cookie([{ ...enough[0], value }]) }, 401);
  }

  // Signed out.
  report.check("the page is live before it", page.disconnects.length === 0);
  await page.signOut();
  const ended = await until("the page's socket to end", () => page.disconnects.length > 0, { within: 5_000 }).catch(() => false);
  report.check("its sessions end with the sign-in", ended !== false);
  await expect("the cookie after the sign-out", { ...own, cookie: cookie(cookies) }, 401);
  const again = await fetchPlain(`${road.pageUrl}/sessions`, { headers: { ...html, cookie: cookie(cookies) } });
  report.check("a page load after it is sent to the sign-in page", again.status === 303, `${again.status}`);
  await page.close();
}

/** Ways to make a cookie that was not given. */
function forgeries(value) {
  const flip = (index) => value.slice(0, index) + (value[index] === "A" ? "B" : "A") + value.slice(index + 1);
  return {
    "one letter changed at the start": flip(1),
    "one letter changed in the middle": flip(Math.floor(value.length / 2)),
    "without its end": value.slice(0, -8),
    "invented": "x".repeat(value.length),
    "empty": "",
  };
}

/** What a client may try to say about itself, beside its own token. */
const claims = {
  "as it is written": { [userHeader]: person.name },
  "in capitals": { "X-FORWARDED-USER": person.name },
  "twice": { [userHeader]: [person.name, person.name] },
  "with underscores": { x_forwarded_user: person.name },
  "as others are called": {
    "x-forwarded-email": person.name, "x-forwarded-preferred-username": person.name, "x-auth-request-email": person.name, "x-auth-request-user": person.name,
    "remote-user": person.name, "tailscale-user-login": person.name, "x-pomerium-claim-email": person.name, "cf-access-authenticated-user-email": person.name,
  },
  "as a local client": { "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", forwarded: "for=127.0.0.1" },
  "with more scopes": { "x-openclaw-scopes": "operator.admin,operator.write" },
};
/** Those that HTTP/2 has no words for. */
const onlyHttp1 = {
  "by taking ours away": { connection: `upgrade, ${userHeader}`, [userHeader]: person.name },
  "by taking the address away": { connection: `upgrade, x-forwarded-for, ${userHeader}` },
};
/** Those that no client library would send: bytes in place of a header. */
const malformed = {
  "a blank before the colon": `${userHeader} : ${person.name}`,
  "a folded line": `x-note: a\r\n ${userHeader}: ${person.name}`,
  "a bare line feed": `x-note: a\n${userHeader}: ${person.name}`,
  "a bare carriage return": `x-note: a\r${userHeader}: ${person.name}`,
  "a letter that is none": `${userHeader.replace("user", "us\u00e9r")}: ${person.name}`,
  "a nought in the name": `${userHeader}\0: ${person.name}`,
};

/** `always`: what the one in front of us says on every request. */
async function spoofed({ road, report }, always) {
  const authorization = `Bearer ${road.edge.bearers[reader.name]}`;
  const url = `${road.wsUrl}/`;
  const knock = (headers, options) => new Bare(url, { headers: { ...always, ...headers }, ...options }).settled();
  const looksOnly = async (what, client) => {
    const { scopes } = client.hello.auth;
    const who = await client.identity();
    report.check(`${what}: ${reader.name}, who may read`, who === reader.name && scopes.join() === "operator.read", `${who}, ${scopes.join()}`);
    const sessions = await client.request("sessions.list").then(() => "done", (error) => error.message);
    report.check(`${what}: may look`, sessions === "done", sessions);
    const refusal = await client.request("sessions.create", { displayName: "never" }).then(() => "done", (error) => error.message);
    report.check(`${what}: and may only look`, /missing scope/.test(refusal), refusal);
    client.stop();
  };
  // Without a claim it works, or else no refusal below would prove anything.
  const honest = async (when, h2) => {
    const what = `nothing claimed, HTTP/${h2 ? "2" : "1.1"}, ${when}`;
    const client = await knock({ authorization }, { h2 });
    report.check(`${what}: in`, client.hello !== undefined, JSON.stringify(client.refused));
    if (client.hello) await looksOnly(what, client);
    return client.hello !== undefined;
  };
  /** What it was refused with; over HTTP/2 the client does not say. */
  const refusal = async (client, headers, h2) => (h2 ? upgradeOverHttp2(url, { ...always, ...headers }) : client.refused.status);

  for (const h2 of [false, true]) {
    if (!(await honest("before", h2))) return;
    report.check(`the answer to an upgrade is seen, HTTP/${h2 ? "2" : "1.1"}`, !h2 || (await upgradeOverHttp2(url, { ...always, authorization })) === 200);
  }
  const attempts = [
    ...Object.entries(malformed).map(([how, bytes]) => ({ how, headers: { "x-note": "here" }, rewrite: (head) => head.replace("x-note: here", bytes) })),
    ...Object.entries({ ...claims, ...onlyHttp1 }).map(([how, headers]) => ({ how: `${how}, HTTP/1.1`, headers, h2: false })),
    ...Object.entries(claims).map(([how, headers]) => ({ how: `${how}, HTTP/2`, headers, h2: true })),
  ];
  for (const { how, headers, ...options } of attempts) {
    const said = { ...headers, authorization };
    const client = await knock(said, options);
    if (client.hello) {
      await looksOnly(how, client);
      continue;
    }
    // A claim may be refused as a whole; it may not be believed.
    const status = await refusal(client, said, options.h2);
    report.check(`${how}: not believed`, [400, 403].includes(status), `${status} ${JSON.stringify(client.refused)}`);
  }
  // Without a token of its own, what it says about itself opens nothing.
  for (const h2 of [false, true]) {
    const said = { [userHeader]: person.name };
    const client = await knock(said, { h2 });
    const status = client.hello ? "in" : await refusal(client, said, h2);
    report.check(`a name alone, HTTP/${h2 ? "2" : "1.1"}: refused`, [401, 403].includes(status), `${status} ${JSON.stringify(client.refused)}`);
    client.stop();
  }
  for (const h2 of [false, true]) await honest("after", h2);
}

/** The status that an upgrade over HTTP/2 (RFC 8441) is answered with, or why there is none. */
function upgradeOverHttp2(url, headers) {
  const { host, pathname } = new URL(url);
  return new Promise((resolve) => {
    const session = connectHttp2(`https://${host}`, { rejectUnauthorized: false });
    const end = (answer) => {
      resolve(answer);
      session.destroy();
    };
    session.setTimeout(10_000, () => end("no answer"));
    session.once("error", (error) => end(error.message));
    session.once("close", () => resolve("closed"));
    session.once("remoteSettings", ({ enableConnectProtocol }) => {
      if (!enableConnectProtocol) return end("no WebSockets over HTTP/2");
      const stream = session.request({ ...headers, ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": pathname, ":authority": host, "sec-websocket-version": "13" });
      stream.once("response", ({ ":status": status }) => end(status));
      stream.once("error", (error) => end(error.message));
    });
  });
}

const screens = {
  desktop: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};

/** The sign-in page as people see it. The pictures stay with --keep. */
async function pictures({ road, report, directory }) {
  for (const [screen, look] of Object.entries(screens)) {
    for (const colorScheme of ["light", "dark"]) {
      const which = `${screen}-${colorScheme}`;
      const page = await Page.open(road, directory, { look: { ...look, colorScheme } });
      await page.load();
      await pause(300);
      report.note(await page.screenshot(`sign-in-${which}`));
      report.check(`${which}: no complaint of the browser`, page.complaints.length === 0, page.complaints.join("; "));
      const before = await page.signInForm();
      report.check(`${which}: the form is there, and fits`, before.fits && before.named && before.focus === "user", JSON.stringify(before));
      await page.signIn({ name: person.name, password: "not my password" });
      await pause(300);
      report.note(await page.screenshot(`sign-in-${which}-wrong`));
      const after = await page.signInForm();
      report.check(`${which}: it says what was wrong, and keeps the name`, /wrong/i.test(after.alert) && after.name === person.name && after.focus === "password" && after.password === "", JSON.stringify(after));
      if (which === "desktop-dark") {
        await page.signIn(person);
        await until("the page to be live", () => page.helloCount > 0, { within: 30_000 });
        report.check("after it one is where one wanted to go", page.at.pathname === "/sessions", page.at.pathname);
      }
      await page.close();
    }
  }
}
