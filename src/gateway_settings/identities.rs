//! `gateway.auth` for a gateway that believes us who somebody is: who may come, and do what.
//!
//! Pure. What the gateway grants somebody already is kept unless somebody says otherwise, however
//! little it is.

use serde_json::{Value, json};

use super::check::MODE;
use super::wanted::{Options, SCOPES};
use super::{AUTO_APPROVE, Finding, Looked, Verdict};
use crate::config::Auth;

pub(super) const SCOPES_OF: &str = "gateway.auth.identityScopes";

/// What no device gets for nothing more than the person at it being signed in.
const NEVER_APPROVED: [&str; 2] = ["operator.admin", "operator.pairing"];
/// What the gateway must find on every request of ours for somebody who signed in.
const REQUIRED_HEADERS: [&str; 2] = ["x-forwarded-proto", "x-forwarded-host"];

#[derive(Debug, Clone)]
pub(super) struct Identities {
    pub(super) user_header: String,
    pub(super) loopback: bool,
    pub(super) people: Vec<Person>,
    /// Whether `deviceAutoApprove` is as it should be there.
    keeps_devices: bool,
    /// Whether it is in trusted-proxy mode.
    believes: bool,
    /// Why it was not seen what people may do there. `None`: nobody looked.
    hindrance: Option<String>,
    /// What people may do whom nobody has named yet.
    others: Vec<String>,
    notes: Vec<String>,
}

/// Somebody who may come in.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) name: String,
    /// What they are to be able to do; empty: nobody said.
    pub(super) asked: Vec<String>,
    /// What the gateway grants them. `None`: that was not seen.
    granted: Option<Vec<String>>,
}

// === impl Identities ===

impl Identities {
    pub(super) fn of(auth: &Auth, options: &Options, loopback: bool) -> Self {
        let named = auth.users.iter().map(|user| &user.name);
        let tokens = auth.tokens.iter().map(|token| &token.user);
        let beyond = options.users.iter().map(|(name, _)| name);
        let mut people: Vec<Person> = Vec::new();
        for name in named.chain(tokens).chain(beyond) {
            if !people.iter().any(|person| person.name == *name) {
                people.push(Person::of(name, options));
            }
        }
        let others = match options.scopes.is_empty() {
            true => SCOPES.map(str::to_owned).to_vec(),
            false => options.scopes.clone(),
        };
        Self {
            user_header: auth.user_header.to_string(),
            loopback,
            people,
            keeps_devices: false,
            believes: false,
            hindrance: None,
            others,
            notes: notes(auth, options),
        }
    }

    pub(super) fn keep(&mut self, looked: &Looked) {
        for person in &mut self.people {
            let granted = looked.granted.iter().find(|(name, _)| *name == person.name);
            person.granted = granted.map(|(_, scopes)| scopes.clone());
        }
        let devices = looked
            .findings
            .iter()
            .find(|finding| finding.setting == AUTO_APPROVE);
        let believed =
            |finding: &Finding| finding.setting == MODE && finding.verdict == Verdict::Ok;
        self.believes = looked.findings.iter().any(believed);
        self.hindrance = Some(hindrance(&looked.findings));
        self.keeps_devices = devices.is_some_and(|finding| finding.verdict == Verdict::Ok);
    }

    pub(super) fn trusted_proxy(&self) -> Value {
        let mut value = json!({
            "userHeader": self.user_header,
            "requiredHeaders": REQUIRED_HEADERS,
        });
        if let Some(map) = value.as_object_mut() {
            if !self.keeps_devices {
                map.insert("deviceAutoApprove".to_owned(), self.device_auto_approve());
            }
            if self.loopback {
                map.insert("allowLoopback".to_owned(), json!(true));
            }
        }
        value
    }

    /// Without scopes of its own the gateway would give a device more than its person may do.
    fn device_auto_approve(&self) -> Value {
        let scopes = self.device_scopes();
        match scopes.is_empty() {
            true => json!({"enabled": false}),
            false => json!({"enabled": true, "scopes": scopes}),
        }
    }

    /// What a device of somebody signed in is approved for by itself; empty: nothing. It is the same
    /// for everybody's, so it is what each of them may do; what else somebody may do is added to it.
    pub(super) fn device_scopes(&self) -> Vec<&str> {
        let first = match self.people.first() {
            Some(person) => person.device_scopes(),
            None => self.others.iter().map(String::as_str).collect(),
        };
        let everybody = |scope: &&str| {
            let mut people = self.people.iter();
            people.all(|person| person.device_scopes().contains(scope))
        };
        let never = |scope: &&str| NEVER_APPROVED.contains(scope);
        let scopes = first.into_iter().filter(everybody);
        scopes.filter(|scope| !never(scope)).collect()
    }

    pub(super) fn by_user(&self, which: impl Fn(&Person) -> bool) -> Value {
        let people = self.people.iter();
        let people = people.filter(|person| which(person) && !self.leaves_alone(person));
        let by_user = people.map(|person| (person.name.clone(), json!(person.scopes())));
        Value::Object(by_user.collect())
    }

    /// Where others were seen and nobody says what this one may do, everything would be a guess, and
    /// one that lets somebody do more than before.
    fn leaves_alone(&self, person: &Person) -> bool {
        let any_seen = self.people.iter().any(|person| person.granted.is_some());
        any_seen && person.granted.is_none() && person.asked.is_empty()
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if !self.believes {
            notes.push(
                "with trusted-proxy the gateway does not start while a shared token is set: the last \
                 command removes gateway.auth.token, and OPENCLAW_GATEWAY_TOKEN has to go from its \
                 environment. Programs on its own machine can use gateway.auth.password"
                    .to_owned(),
            );
        }
        let unseen = self.people.iter().filter(|person| person.granted.is_none());
        let (alone, unseen): (Vec<&Person>, Vec<&Person>) =
            unseen.partition(|person| self.leaves_alone(person));
        let names = |people: Vec<&Person>| {
            let names = people.iter().map(|person| person.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        if !unseen.is_empty() {
            let why = match &self.hindrance {
                None => "with the gateway running and without --print it is kept".to_owned(),
                Some(why) => format!("{why}; `openclaw config get {SCOPES_OF}` shows it"),
            };
            notes.push(format!(
                "what the gateway grants {} already was not seen, and is overwritten: {why}, and --user \
                 NAME=SCOPE,SCOPE says it",
                names(unseen)
            ));
        }
        if !alone.is_empty() {
            notes.push(format!(
                "what the gateway grants {} was not seen, and is not in these settings: the commands \
                 leave it as it is, and --user NAME=SCOPE,SCOPE says it",
                names(alone)
            ));
        }
        for person in &self.people {
            if let Some(granted) = person.overwritten() {
                notes.push(format!(
                    "what the gateway grants {} is overwritten: {}",
                    person.name,
                    granted.join(", ")
                ));
            }
        }
        notes
    }
}

/// What kept a look from people: the last thing that was not as it should be, for it ended there.
fn hindrance(findings: &[Finding]) -> String {
    let of_people =
        |finding: &Finding| [SCOPES_OF, AUTO_APPROVE].contains(&finding.setting.as_str());
    let mut odd = findings.iter().rev();
    match odd.find(|finding| finding.verdict != Verdict::Ok && !of_people(finding)) {
        Some(finding) if finding.setting == MODE && finding.verdict == Verdict::Wrong => {
            "the gateway is not in trusted-proxy mode yet".to_owned()
        }
        Some(finding) => format!("{}: {}", finding.setting, finding.seen),
        None => "the gateway was not asked about them".to_owned(),
    }
}

fn notes(auth: &Auth, options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    let elsewhere = auth.certificate.is_some() || auth.forward.is_some();
    if elsewhere && options.users.is_empty() {
        notes.push(
            "users who come in by a certificate or through the sign-in service are not in this \
             config: name each with --user NAME, else they may do nothing at the gateway"
                .to_owned(),
        );
    }
    notes.push(
        "a device keeps what it was approved for, beside its person's identityScopes: \
         deviceAutoApprove limits only those approved from now on; for earlier ones see openclaw \
         devices list"
            .to_owned(),
    );
    notes
}

// === impl Person ===

impl Person {
    fn of(name: &str, options: &Options) -> Self {
        let mut asked: Vec<String> = Vec::new();
        let said = options.users.iter().filter(|(user, _)| user == name);
        for scope in said.flat_map(|(_, scopes)| scopes) {
            if !asked.contains(scope) {
                asked.push(scope.clone());
            }
        }
        if asked.is_empty() {
            asked.clone_from(&options.scopes);
        }
        Self {
            name: name.to_owned(),
            asked,
            granted: None,
        }
    }

    /// What they may do when all is as it should be.
    pub(super) fn scopes(&self) -> Vec<&str> {
        let granted = self.granted.as_deref().unwrap_or_default();
        match (self.asked.as_slice(), granted) {
            ([], []) => SCOPES.to_vec(),
            ([], scopes) | (scopes, _) => scopes.iter().map(String::as_str).collect(),
        }
    }

    /// Who administers a gateway may do everything there, whatever else is granted.
    fn device_scopes(&self) -> Vec<&str> {
        let scopes = self.scopes();
        match self.asked.is_empty() && scopes.contains(&"operator.admin") {
            true => SCOPES.to_vec(),
            false => scopes,
        }
    }

    /// Whether the gateway grants that already.
    pub(super) fn is_kept(&self) -> bool {
        self.granted
            .as_deref()
            .is_some_and(|granted| same(&self.scopes(), granted))
    }

    fn overwritten(&self) -> Option<&[String]> {
        let granted = self.granted.as_deref()?;
        (!granted.is_empty() && !self.is_kept()).then_some(granted)
    }
}

fn same(some: &[&str], others: &[String]) -> bool {
    some.len() == others.len() && others.iter().all(|other| some.contains(&other.as_str()))
}
