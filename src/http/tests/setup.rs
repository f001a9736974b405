//! The config that a test's proxy runs with.

use std::path::PathBuf;

use super::kit::{LONG, Setup};
use crate::config::*;

impl Setup {
    pub(super) fn config(&self) -> Config {
        Config {
            listen: Listen {
                https: Vec::new(),
                http: Vec::new(),
                proxy_protocol: false,
                trusted_proxies: self.trusted.clone(),
            },
            tls: Tls {
                certificate: CertificateSource::Dev {
                    dir: PathBuf::new(),
                },
                min_version: TlsVersion::V1_2,
                client_ca: None,
                client_certificates: ClientCertificates::Required,
            },
            acme: None,
            routes: vec![Route {
                name: "default".into(),
                host: None,
                path: None,
                upstream: self.upstream.clone(),
            }],
            hold: hold(),
            http: self.http.clone(),
            limits: limits(),
            auth: parse("", "test").unwrap().config.auth,
            admin: Admin { listen: None },
            log: Log {
                level: "off".into(),
                format: LogFormat::Json,
            },
        }
    }
}

fn hold() -> Hold {
    Hold {
        max: LONG,
        upgrade: LONG,
        handshake: LONG,
        notice_after: LONG,
        notice_every: LONG,
        buffer: 1024,
        buffer_total: 1024,
        resume_rate: 100,
        unfinished_handshakes: 64,
        unfinished_per_ip: 16,
        replay_requests: ReplayRequests::Safe,
    }
}

fn limits() -> Limits {
    Limits {
        sessions: 100,
        sessions_per_ip: 100,
        handshakes_per_ip: 100,
        header_timeout: LONG,
        tls_timeout: LONG,
        frame: 1024,
        preauth_frame: 1024,
        ping_every: None,
        origins: Vec::new(),
        drain: LONG,
        handover: LONG,
    }
}
