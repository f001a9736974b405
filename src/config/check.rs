//! The rules: what each key means, its default, its range, and what contradicts what.
//!
//! One file per section; rules over several sections are in [`across`]. All of them report to the
//! [`Checker`] and go on, so that one run finds everything.

mod acme;
mod across;
mod auth;
mod gateway;
mod hold;
mod limits;
mod listen;
mod local;
mod routes;
mod tls;

use toml::de::DeTable;

use super::Overrides;
use super::checker::Checker;
use super::model::{Auth, Config, Tls};
use super::section::Section;

pub use auth::user_name;

/// Reads the whole tree. The result is only to be used if `checker` has no errors in the end.
pub(super) fn config<'t>(
    table: &'t DeTable<'t>,
    checker: &mut Checker<'t>,
    overrides: &Overrides,
) -> Config {
    let mut top = Section::top(checker, table);
    let listen = top.section("listen", |section| listen::read(section, &overrides.listen));
    let (tls, client_cas) = top.section("tls", tls::read);
    let gateway = top.section("gateway", |section| gateway::read(section, overrides));
    let (hold, resume) = top.section("hold", hold::read);
    let default = gateway.with_resume(resume);
    let routes = top.each("route", "[[route]], with two brackets", |s| {
        routes::read(s, &default)
    });
    let http = top.section("http", hold::read_http);
    let limits = top.section("limits", limits::read);
    let auth = top.section("auth", auth::read);
    let acme = top.section("acme", |section| acme::read(section, &auth.state_dir));
    let admin = top.section("admin", |section| {
        local::read_admin(section, overrides.admin)
    });
    let log = top.section("log", local::read_log);
    top.finish();

    across::listeners(checker, &listen, &admin);
    across::certificate(checker, &listen, &tls);
    let acme = acme.into_model(checker, &tls, &listen);
    across::gateway_is_not_us(checker, &listen, &admin, &default, &routes);
    across::client_certificates(checker, &auth, &tls);
    across::routes(checker, &default, &routes);
    Config {
        listen: listen.into_model(),
        tls: Tls {
            client_certificates: auth.client_certificates(),
            ..tls
        },
        acme,
        routes: routes::into_model(routes, default),
        hold,
        http,
        limits,
        auth: Auth { client_cas, ..auth },
        admin: admin.into_model(),
        log,
    }
}
