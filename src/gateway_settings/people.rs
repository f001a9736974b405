//! Looks at what a running gateway makes of those whom we let in: the second half of
//! [`super::check()`], where it is decided here who comes in.

use serde_json::{Value, json};

use super::Finding;
use super::answer::{Reason, code_of, text};
use super::auto_approve;
use super::check::{Check, GATEWAY, MODE, ORIGINS};
use super::connect::{As, Connected, connect, request};
use super::identities::{Identities, Person, SCOPES_OF};
use super::wanted::merge;

const USER_HEADER: &str = "gateway.auth.trustedProxy.userHeader";
const REQUIRED: &str = "gateway.auth.trustedProxy.requiredHeaders";
const LOOPBACK: &str = "gateway.auth.trustedProxy.allowLoopback";
const ALLOWED: &str = "gateway.auth.trustedProxy.allowUsers";

/// Users asked about; of more the rest is not looked at.
const MOST_USERS: usize = 64;

impl Check<'_> {
    pub(super) async fn people(&mut self, identity: &Identities, origin: Option<&str>) {
        let Some(origin) = origin else {
            let seen = "what comes after an allowed origin was not looked at";
            let remedy = format!("set {ORIGINS}, and ask again");
            self.note(Finding::cannot_tell("gateway.auth", seen, remedy));
            return;
        };
        let header = identity.user_header.as_str();
        if identity.people.is_empty() {
            let (seen, remedy) = ("no user is known", "name one with --user NAME");
            self.note(Finding::cannot_tell(SCOPES_OF, seen, remedy));
        }
        let mut asked: Vec<(&str, Option<&Person>)> = identity
            .people
            .iter()
            .map(|person| (person.name.as_str(), Some(person)))
            .collect();
        if asked.is_empty() {
            asked.push(("holdline-check", None));
        }
        let mut trusted = None;
        for (user, person) in asked.iter().copied().take(MOST_USERS) {
            let dressed = As {
                user: Some((header, user)),
                origin: Some(origin),
                ..self.forwarded()
            };
            match connect(self.upstream, &dressed).await {
                Ok(Connected::Hello(hello))
                    if text(&hello, "/auth/method") == Some("trusted-proxy") =>
                {
                    if trusted.is_none() {
                        self.trusts(identity);
                    }
                    trusted = Some(user);
                    if let Some(person) = person {
                        self.scopes(person, &hello);
                    }
                }
                Ok(Connected::Hello(hello)) => {
                    let method = text(&hello, "/auth/method").unwrap_or("nothing");
                    let seen = format!("it lets in by {method}, whoever holdline says it is");
                    self.note(Finding::wrong(MODE, seen, "set it to \"trusted-proxy\""));
                    return;
                }
                Ok(refused) if code_of(&refused) == Some("CONTROL_UI_DEVICE_IDENTITY_REQUIRED") => {
                    if !self.refused(identity, user, &dressed).await {
                        return;
                    }
                }
                // Not for want of an identity, so that a device might do: it stays untried.
                Ok(refused) => {
                    let seen = Reason::of(&refused).in_words();
                    let remedy = "see the gateway's log";
                    return self.note(Finding::cannot_tell(MODE, seen, remedy));
                }
                Err(error) => return self.unanswered(MODE, &error),
            }
        }
        if asked.len() > MOST_USERS {
            let seen = format!("only the first {MOST_USERS} users were looked at");
            self.note(Finding::cannot_tell(SCOPES_OF, seen, ""));
        }
        if let Some(user) = trusted {
            // Without an answer to one question the next would only say the same again.
            if self.required_headers(header, user, origin).await {
                let reader = self.reader(user).to_owned();
                self.auto_approve(identity, &reader, origin).await;
            }
        }
    }

    /// One hello in the name of a user shows all of these at once.
    fn trusts(&mut self, identity: &Identities) {
        self.note(Finding::ok(MODE, "trusted-proxy"));
        let seen = format!("it reads {}", identity.user_header);
        self.note(Finding::ok(USER_HEADER, seen));
        if identity.loopback {
            self.note(Finding::ok(LOOPBACK, "it believes us over loopback"));
        }
    }

    /// What somebody may do is as much as was asked for, or where nobody asked, anything at all.
    fn scopes(&mut self, person: &Person, hello: &Value) {
        let name = &person.name;
        let granted: Vec<&str> = hello
            .pointer("/auth/scopes")
            .and_then(Value::as_array)
            .map(|scopes| scopes.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let granted_to = granted.iter().map(|&scope| scope.to_owned()).collect();
        self.looked.granted.push((name.clone(), granted_to));
        if granted.is_empty() {
            let wanted = json!({ name.as_str(): person.scopes() });
            let seen = format!("{name}: nothing; they may come in, and do nothing");
            let command = merge(SCOPES_OF, &wanted);
            let remedy = match person.asked.is_empty() {
                true => format!("say what they may do; for everything: {command}"),
                false => command,
            };
            return self.note(Finding::wrong(SCOPES_OF, seen, remedy));
        }
        let asked = |scope: &str| person.asked.iter().any(|asked| asked == scope);
        let missing = person.asked.iter().map(String::as_str);
        let missing: Vec<&str> = missing.filter(|scope| !granted.contains(scope)).collect();
        let beyond = granted.iter().copied();
        let beyond: Vec<&str> = match person.asked.is_empty() {
            true => Vec::new(),
            false => beyond.filter(|scope| !asked(scope)).collect(),
        };
        let seen = format!("{name}: {}", granted.join(", "));
        let mut remedy = Vec::new();
        if !missing.is_empty() {
            remedy.push(format!("add {} for {name}", missing.join(", ")));
        }
        if !beyond.is_empty() {
            remedy.push(format!("remove {} for {name}", beyond.join(", ")));
        }
        self.note(match remedy.is_empty() {
            true => Finding::ok(SCOPES_OF, seen),
            false => Finding::wrong(SCOPES_OF, seen, remedy.join("; ")),
        });
    }

    /// Why a user is refused. Whether it is worth asking about the next one.
    async fn refused(&mut self, identity: &Identities, user: &str, dressed: &As<'_>) -> bool {
        let remedy = "set it to \"trusted-proxy\"";
        let Some(reason) = self.reason(dressed, remedy).await else {
            return false;
        };
        let header = &identity.user_header;
        let trusted = |check: &mut Self| check.note(Finding::ok(MODE, "trusted-proxy"));
        match reason.auth.as_str() {
            "trusted_proxy_user_not_allowed" => {
                let seen = format!("{user} is refused");
                let remedy = format!("add \"{user}\", or unset it");
                self.note(Finding::wrong(ALLOWED, seen, remedy));
                return true;
            }
            "trusted_proxy_loopback_source" => {
                trusted(self);
                let seen = "it believes nobody on its own machine";
                self.note(Finding::wrong(LOOPBACK, seen, "set it to true"));
            }
            "trusted_proxy_user_missing" => {
                trusted(self);
                let seen = format!("it does not read {header}");
                self.note(Finding::wrong(
                    USER_HEADER,
                    seen,
                    format!("set it to \"{header}\""),
                ));
            }
            "trusted_proxy_local_interface_source" => {
                trusted(self);
                let seen = "it believes nobody who comes from another address of its own machine";
                let remedy = "reach it over loopback: [gateway] url = \"http://127.0.0.1:PORT\"";
                self.note(Finding::wrong(GATEWAY, seen, remedy));
            }
            auth => {
                if let Some(missing) = auth.strip_prefix("trusted_proxy_missing_header_") {
                    trusted(self);
                    let seen = format!("it wants {missing}, which holdline does not send");
                    let remedy = "set it to [\"x-forwarded-proto\", \"x-forwarded-host\"]";
                    self.note(Finding::wrong(REQUIRED, seen, remedy));
                } else if auth.starts_with("trusted_proxy_") {
                    trusted(self);
                    let seen = format!("{user} is refused: {auth}");
                    self.note(Finding::cannot_tell(
                        USER_HEADER,
                        seen,
                        "see the gateway's log",
                    ));
                } else {
                    self.note(Finding::wrong(MODE, reason.in_words(), remedy));
                }
            }
        }
        false
    }

    /// Whether it insists on what only a proxy sends.
    async fn required_headers(&mut self, header: &str, user: &str, origin: &str) -> bool {
        for missing in ["x-forwarded-proto", "x-forwarded-host"] {
            let dressed = As {
                but: Some(missing),
                user: Some((header, user)),
                origin: Some(origin),
                ..self.forwarded()
            };
            match connect(self.upstream, &dressed).await {
                Ok(Connected::Hello(_)) => {
                    let seen = format!("it lets {user} in without {missing}");
                    let remedy = format!("add \"{missing}\"");
                    self.note(Finding::wrong(REQUIRED, seen, remedy));
                }
                Ok(_) => self.note(Finding::ok(REQUIRED, format!("{missing} is required"))),
                Err(error) => {
                    self.unanswered(REQUIRED, &error);
                    return false;
                }
            }
        }
        true
    }

    /// Somebody who may read, if any of them may.
    fn reader<'u>(&'u self, user: &'u str) -> &'u str {
        let reads = |scope: &String| ["operator.read", "operator.admin"].contains(&scope.as_str());
        let mut granted = self.looked.granted.iter();
        let reader = granted.find(|(_, scopes)| scopes.iter().any(reads));
        reader.map_or(user, |(name, _)| name)
    }

    /// What a new browser of somebody signed in may do; read where a user may read. With it what
    /// else only the gateway's config says.
    async fn auto_approve(&mut self, identity: &Identities, user: &str, origin: &str) {
        let dressed = As {
            user: Some((identity.user_header.as_str(), user)),
            origin: Some(origin),
            ..self.forwarded()
        };
        let mut identity = identity.clone();
        identity.keep(&self.looked);
        let wanted = identity.device_scopes();
        let finding = match request(self.upstream, &dressed, auto_approve::METHOD).await {
            Ok(Ok(answer)) => {
                self.looked.lists = auto_approve::lists(&answer);
                auto_approve::judge(&answer, &wanted)
            }
            Ok(Err(error)) => {
                let code = text(&error, "/details/code").or_else(|| text(&error, "/code"));
                let code = code.unwrap_or("no reason");
                let seen = format!("{user} may not read the gateway's config ({code})");
                auto_approve::cannot_tell(seen, &wanted)
            }
            Err(error) => auto_approve::cannot_tell(error.to_string(), &wanted),
        };
        self.note(finding);
    }
}
