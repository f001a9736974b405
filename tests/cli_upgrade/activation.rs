//! Sockets that a service manager has opened.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use tokio::process::Command;

use crate::kit::{ScriptedGateway, Target, http, within};
use crate::service::{Folder, Service};

fn listening(address: &str) -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Starts it as systemd does: the sockets are 3 and 4, and the environment says so to this process.
fn activated(folder: &Folder, names: &str, sockets: [OwnedFd; 2], more: &str) -> Command {
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES={names} {more} \
         exec ./holdline run --config holdline.toml 3<&0 4<&1 </dev/null >/dev/null"
    );
    let mut command = Command::new("sh");
    folder.prepare(&mut command);
    let [three, four] = sockets.map(Stdio::from);
    command.args(["-c", &script]).stdin(three).stdout(four);
    command
}

#[tokio::test]
async fn sockets_are_taken_by_name_and_go_on_to_the_next_binary() {
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "");
    let (one, https) = listening("127.0.0.3:0");
    let (two, admin) = listening("127.0.0.1:0");
    // The manager keeps its own.
    let sockets = [&two, &one].map(|socket| socket.try_clone().unwrap().into());
    let command = activated(&folder, "admin:https", sockets, "");
    let mut service = Service::run(folder, command).await;
    assert_eq!((service.https, service.admin), (https, admin));
    let served = http::get(&service.target(), "/health", &[]).await;
    assert_eq!(served.status, 200);
    let (code, _, err) = service.upgrade().await;
    assert_eq!(code, Some(0), "{err}");
    let running = service.line("running").await;
    assert_eq!(running["https"], https.to_string());
    assert_eq!(running["admin"], admin.to_string());
    assert_eq!(service.exit().await.code(), Some(0));
    let served = http::get(&service.target(), "/health", &[]).await;
    assert_eq!(served.status, 200);
}

/// `ListenStream=443` in a socket unit is one socket for both families.
#[tokio::test]
async fn one_socket_of_both_families_is_enough_after_a_reload_as_well() {
    // A machine without IPv6 has nothing to show here.
    let Ok(both) = TcpListener::bind("[::]:0") else {
        return;
    };
    let port = both.local_addr().unwrap().port();
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "");
    let https = format!("\"0.0.0.0:{port}\", \"[::]:{port}\"");
    let config = folder.config().replacen("\"127.0.0.1:0\"", &https, 1);
    folder.configure(&config);
    let (admin, _) = listening("127.0.0.1:0");
    let command = activated(&folder, "https:admin", [both.into(), admin.into()], "");
    let mut service = Service::run(folder, command).await;
    let changed = config.replace("sessions_per_ip = 8000", "sessions_per_ip = 7000");
    service.folder().configure(&changed);
    service.signal(service.pid(), rustix::process::Signal::HUP);
    let reloaded = service.line("reloaded").await;
    assert_eq!(reloaded["changed"], "limits.sessions_per_ip");
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let target = Target::tls(address.parse().unwrap());
        assert_eq!(http::get(&target, "/health", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn sockets_without_our_names_are_taken_by_address_and_others_closed() {
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "");
    let (one, https) = listening("127.0.0.1:0");
    let (two, unlisted) = listening("127.0.0.1:0");
    let config = folder.config();
    folder.configure(&config.replacen("127.0.0.1:0", &https.to_string(), 1));
    let command = activated(&folder, "a.socket:a.socket", [one.into(), two.into()], "");
    let mut service = Service::run(folder, command).await;
    assert_eq!(service.https, https);
    let served = http::get(&service.target(), "/health", &[]).await;
    assert_eq!(served.status, 200);
    let refused = Target::plain(unlisted).dial_tcp().await;
    assert!(refused.is_err(), "it still listens");
    service.signal(service.pid(), rustix::process::Signal::TERM);
    assert_eq!(service.exit().await.code(), Some(0));
}

/// The stock config is for this machine only, and the stock socket unit is not.
#[tokio::test]
async fn sockets_for_everybody_are_told_as_such() {
    let gateway = ScriptedGateway::start().await;
    let folder = Folder::new(&gateway, "");
    let (one, everybody) = listening("0.0.0.0:0");
    let (two, left_over) = listening("127.0.0.1:0");
    let command = activated(&folder, "https:https", [one.into(), two.into()], "");
    let mut service = Service::run(folder, command).await;
    assert_eq!(service.https, everybody);
    let told = service.line("reachable from other machines").await;
    assert_eq!(
        (&told["level"], &told["address"]),
        (&"WARN".into(), &everybody.to_string().into())
    );
    let closed = service.line("closed an https socket").await;
    assert_eq!(
        (&closed["level"], &closed["address"]),
        (&"WARN".into(), &left_over.to_string().into())
    );
}

#[tokio::test]
async fn what_is_meant_for_another_process_or_is_no_listener_is_not_used() {
    let gateway = ScriptedGateway::start().await;
    let sockets = || {
        [
            listening("127.0.0.1:0").0.into(),
            listening("127.0.0.1:0").0.into(),
        ]
    };
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let connection = || {
        let (socket, address) = listening("127.0.0.1:0");
        let _ = std::net::TcpStream::connect(address).unwrap();
        OwnedFd::from(socket.accept().unwrap().0)
    };
    for (sockets, more, words) in [
        ([file(), file()], "", "no listening TCP socket"),
        ([connection(), connection()], "", "Accept=yes"),
        (sockets(), "LISTEN_FDS=many", "LISTEN_FDS = \"many\""),
        (
            sockets(),
            "LISTEN_FDS=4000000000",
            "no number of sockets up to",
        ),
    ] {
        let folder = Folder::new(&gateway, "");
        let mut command = activated(&folder, "https:http", sockets, more);
        let output = within("the command", command.output()).await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(words), "no {words} in {err}");
    }
    let folder = Folder::new(&gateway, "");
    let command = activated(&folder, "https:http", [file(), file()], "LISTEN_PID=1");
    let service = Service::run(folder, command).await;
    let served = http::get(&service.target(), "/health", &[]).await;
    assert_eq!(served.status, 200);
}
