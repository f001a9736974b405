//! Whether the gateways believe us, setting by setting: what `holdline gateway-config` checks.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::case::Case;
use super::{Finding, Verdict};
use crate::gateway_settings::{self as gateway, Options, Wanted};
use crate::hint;

/// Below the look's own, so that what was seen until then is told.
const LIMIT: Duration = Duration::from_secs(11);

/// Keeps nobody from being served.
const LIGHT: &str = "gateway.auth.trustedProxy.deviceAutoApprove";
/// Its remedy is a command already, for one person only.
const SCOPES: &str = "gateway.auth.identityScopes";
const ORIGINS: &str = "gateway.controlUi.allowedOrigins";

pub(super) async fn look(case: Arc<Case>) -> Vec<Finding> {
    let Some(config) = case.config.as_deref() else {
        return vec![Finding::cannot_tell(
            "",
            "there is no good config that names a gateway",
        )];
    };
    let config_of_names = config.clone();
    let names = super::blocking(move || gateway::names(&config_of_names)).await;
    let options = Options {
        names: names.unwrap_or_default(),
        origins: case.origins.clone(),
        ..Options::default()
    };
    let Ok(wanted) = Wanted::of_every(config, &options) else {
        return vec![Finding::ok(
            "",
            "no gateway is one of OpenClaw: there is nothing to set",
        )];
    };
    let mut findings = vec![who_decides(config.auth.is_on())];
    let looking: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            let case = Arc::clone(&case);
            AbortOnDropHandle::new(tokio::spawn(async move {
                let name = wanted.gateway();
                let same = |gateway: &&super::case::Gateway| gateway.upstream.authority() == name;
                match case.gateways.iter().find(same) {
                    Some(gateway) if !gateway.health().await.answers() => {
                        vec![Finding::cannot_tell(name, "it does not answer")]
                    }
                    _ => {
                        let looked = gateway::check(&wanted, LIMIT).await;
                        judge(&name, &looked.findings, &case.origins)
                    }
                }
            }))
        })
        .collect();
    for looked in looking {
        findings.extend(looked.await.unwrap_or_default());
    }
    findings
}

fn who_decides(here: bool) -> Finding {
    match here {
        true => Finding::ok(
            "[auth]",
            "who comes in is decided by holdline, and gateways have to believe it",
        ),
        false => Finding::ok(
            "[auth]",
            "off: who comes in is decided by the gateway; it only has to know holdline as a proxy, and the pages' origin",
        ),
    }
}

/// One origin that is allowed is enough to work with.
fn judge(name: &str, findings: &[gateway::Finding], origins: &[String]) -> Vec<Finding> {
    let is_allowed = |finding: &gateway::Finding| {
        finding.setting == ORIGINS && finding.verdict == gateway::Verdict::Ok
    };
    let command = || {
        let origins = origins.iter().map(|origin| ("--origin", origin.clone()));
        hint::same_command_with("gateway-config", origins)
    };
    let any_origin = findings.iter().any(is_allowed);
    findings
        .iter()
        // The looks before this one say as much.
        .filter(|finding| {
            !(finding.setting == "gateway" && finding.verdict == gateway::Verdict::Ok)
        })
        .map(|finding| {
            let setting = finding.setting.as_str();
            let light = setting == LIGHT || (setting == ORIGINS && any_origin);
            let verdict = match finding.verdict {
                gateway::Verdict::Ok => Verdict::Ok,
                gateway::Verdict::CannotTell => Verdict::CannotTell,
                gateway::Verdict::Wrong if light => Verdict::Warning,
                gateway::Verdict::Wrong => Verdict::Failure,
            };
            let remedy = match finding.verdict {
                gateway::Verdict::Wrong if setting != SCOPES => {
                    format!("{}; `{}` prints the commands", finding.remedy, command())
                }
                _ => finding.remedy.clone(),
            };
            Finding::new(verdict, format!("{name} {setting}"), &finding.seen, remedy)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(setting: &str, verdict: gateway::Verdict) -> gateway::Finding {
        gateway::Finding {
            setting: setting.to_owned(),
            verdict,
            seen: "seen".to_owned(),
            remedy: "do".to_owned(),
        }
    }

    #[test]
    fn what_shuts_nobody_out_is_a_warning() {
        use gateway::Verdict::{CannotTell, Ok, Wrong};
        let judged = |findings: &[gateway::Finding]| {
            let findings = judge("gw", findings, &[]);
            findings
                .iter()
                .map(|finding| finding.verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(judged(&[finding("gateway", Ok)]), []);
        assert_eq!(judged(&[finding("gateway", Wrong)]), [Verdict::Failure]);
        assert_eq!(
            judged(&[finding("gateway.trustedProxies", Wrong)]),
            [Verdict::Failure]
        );
        assert_eq!(judged(&[finding(LIGHT, Wrong)]), [Verdict::Warning]);
        assert_eq!(judged(&[finding(LIGHT, CannotTell)]), [Verdict::CannotTell]);
        assert_eq!(
            judged(&[finding(SCOPES, Wrong)]),
            [Verdict::Failure],
            "somebody may do nothing"
        );
        let origins = ["https://claw.example.com".to_owned()];
        let told = judge("gw", &[finding(ORIGINS, Wrong)], &origins);
        let command = "`holdline gateway-config --origin https://claw.example.com` prints";
        assert!(told[0].remedy.contains(command), "{told:?}");
        let (good, bad) = (finding(ORIGINS, Ok), finding(ORIGINS, Wrong));
        assert_eq!(
            judged(&[good, bad.clone()]),
            [Verdict::Ok, Verdict::Warning]
        );
        assert_eq!(
            judged(&[bad.clone(), bad]),
            [Verdict::Failure, Verdict::Failure]
        );
    }
}
