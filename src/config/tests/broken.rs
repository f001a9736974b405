//! Broken configs: for each the place, the key and the words that tell what to write.

use super::*;

/// The errors of a text as `LINE:COLUMN KEY | what | remedy`.
pub(super) fn errors(text: &str) -> Vec<String> {
    let errors = check(text, &Overrides::default())
        .verdict
        .map(|_| ())
        .unwrap_err();
    let line = |problem: &Problem| {
        let place = problem.place.to_string().replace("holdline.toml:", "");
        format!(
            "{place} {} | {} | {}",
            problem.key, problem.what, problem.remedy
        )
    };
    errors.errors.iter().map(line).collect()
}

/// One error, at this place, for this key, with these words in it.
#[track_caller]
fn broken(text: &str, place: &str, key: &str, words: &[&str]) {
    let found = errors(text);
    let [one] = found.as_slice() else {
        panic!("one error expected: {found:#?}")
    };
    assert!(one.starts_with(&format!("{place} {key} | ")), "{one}");
    for word in words {
        assert!(one.contains(word), "no {word:?} in: {one}");
    }
}

/// Every one of them, by name.
pub(crate) const ALL: [&[(&str, &str)]; 7] = [
    NOT_TOML,
    KEYS,
    VALUES,
    MORE_VALUES,
    WHO_COMES_IN,
    ADDRESSES,
    CONTRADICTIONS,
];

macro_rules! broken {
    ($all:ident $($name:ident: $text:expr => $place:literal, $key:literal, [$($word:literal),+];)+) => {
        const $all: &[(&str, &str)] = &[$((stringify!($name), $text)),+];
        $(#[test] fn $name() { broken($text, $place, $key, &[$($word),+]); })+
    };
}

// Not TOML.
broken! { NOT_TOML
    value_without_quotes: "[hold]\nmax = 10m" => "2:7", "", ["not TOML", "write \"10m\", in quotes"];
    curly_quotes: "[gateway]\nurl = “http://127.0.0.1:3001”" => "2:7", "", ["write \"http://127.0.0.1:3001\"", "plain quotes"];
    curly_quotes_in_a_list: "[listen]\nhttps = [“127.0.0.1:1”]" => "2:10", "", ["write \"127.0.0.1:1\"", "plain quotes"];
    curly_quotes_at_the_end: "[gateway]\nurl = \"http://127.0.0.1:3001”" => "2:30", "", ["close the text with a plain \""];
    text_without_end: "[hold]\nmax = \"10m\n" => "2:11", "", ["close the text with a \""];
    header_without_end: "[hold\nmax = \"10m\"" => "1:6", "", ["close the header with ]"];
    key_twice: "[hold]\nmax = \"1m\"\nmax = \"2m\"" => "3:1", "", ["duplicate key", "keep one"];
    section_twice: "[hold]\n[log]\n[hold]" => "3:2", "", ["duplicate key", "keep one header"];
    nothing_after_equals: "[hold]\nmax =" => "2:6", "", ["write a value after the ="];
    no_comma: "[listen]\nhttps = [\"127.0.0.1:1\" \"[::1]:1\"]" => "2:24", "", ["put a comma"];
}

// Keys and sections.
broken! { KEYS
    misspelt_key: "[hold]\nupgarde = \"5s\"" => "2:1", "hold.upgarde", ["no such key", "did you mean \"upgrade\"?"];
    misspelt_section: "[limit]\nsessions = 5" => "1:2", "limit", ["no such section", "did you mean \"limits\"?"];
    dash_in_a_key: "[limits]\nping-every = \"5s\"" => "2:1", "limits.ping-every", ["did you mean \"ping_every\"?"];
    key_of_another_section: "[hold]\norigins = []" => "2:1", "hold.origins", ["belongs under [limits]"];
    unknown_key: "[http]\nredirect = true" => "2:1", "http.redirect", ["no such key", "known here: hold, page_after"];
    key_that_others_call_so: "[acme]\nemail = [\"nick@example.com\"]" => "2:1", "acme.email", ["no such key", "called \"contact\""];
    unknown_key_of_a_route: "[[route]]\npath = \"/a\"\nurl = \"http://a\"\nhosts = \"b\"" => "4:1", "route[0].hosts", ["did you mean \"host\"?"];
    value_for_a_section: "hold = \"10m\"" => "1:8", "hold", ["write [hold]"];
    one_bracket_for_a_route: "[route]\nurl = \"http://a\"" => "1:1", "route", ["[[route]]"];
    acme_that_is_not_served: "[acme]\ndomains = [\"a.example.net\"]" => "2:11", "acme.domains", ["[tls] serves another certificate", "certificate = \"acme\""];
    auth_without_a_mode: "[auth]\ntokens = [{ name = \"a\", user = \"b\", hash = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]" => "1:1", "auth", ["tokens are named", "add \"token\""];
    auth_mode: "[auth]\nmodes = [\"basic\"]" => "2:10", "auth.modes[0]", ["not a way to sign in", "\"password\""];
    acme_without_names: "[tls]\ncertificate = \"acme\"" => "holdline.toml", "acme.domains", ["needs the names that clients use", "domains = ["];
    forward_without_a_url: "[auth]\nmodes = [\"forward\"]" => "holdline.toml", "auth.forward", ["no service is named", "url ="];
    forward_url: "[auth.forward]\nurl = \"ftp://sso/auth\"" => "2:7", "auth.forward.url", ["not a URL", "http://127.0.0.1:4180"];
    forward_with_a_password: "[auth.forward]\nurl = \"https://me:secret@sso/auth\"" => "2:7", "auth.forward.url", ["no user or password"];
    ca_for_plain_http: "[auth.forward]\nurl = \"http://sso/auth\"\nca_root = \"ca.pem\"" => "3:11", "auth.forward.ca_root", ["plain HTTP", "https://"];
    ca_that_is_not_there: "[auth.forward]\nurl = \"https://sso/auth\"\nca_root = \"none.pem\"" => "3:11", "auth.forward.ca_root", ["No such file", "PEM file"];
    recheck_too_often: "[auth.forward]\nrecheck = \"1s\"" => "2:11", "auth.forward.recheck", ["too small", "at least \"5s\""];
}

// Values.
broken! { VALUES
    number_for_a_duration: "[hold]\nmax = 180" => "2:7", "hold.max", ["a unit", "write \"180s\""];
    other_word_for_a_unit: "[hold]\nmax = \"10min\"" => "2:7", "hold.max", ["write \"10m\""];
    zero: "[hold]\nmax = \"0s\"" => "2:7", "hold.max", ["too small", "at least \"1ms\""];
    upgrade_longer_than_clients_wait: "[hold]\nupgrade = \"15s\"" => "2:11", "hold.upgrade", ["clients give up at 15 s", "at most \"14s\""];
    handshake_longer_than_clients_wait: "[hold]\nhandshake = \"1m\"" => "2:13", "hold.handshake", ["clients give up at 15 s", "at most \"14s\""];
    reminders_too_rare: "[hold]\nnotice_every = \"26s\"" => "2:16", "hold.notice_every", ["silent", "at most \"25s\""];
    size_without_a_unit: "[limits]\nframe = 1048576" => "2:9", "limits.frame", ["not a size", "write \"1048576B\""];
    decimal_size: "[limits]\nframe = \"25MB\"" => "2:9", "limits.frame", ["write \"25MiB\""];
    rate_without_a_unit: "[limits]\nhandshakes_per_ip = 20" => "2:21", "limits.handshakes_per_ip", ["write \"20/s\""];
    negative_count: "[limits]\nsessions = -1" => "2:12", "limits.sessions", ["too small", "at least 1"];
    text_for_a_count: "[hold]\nresume_rate = \"100\"" => "2:15", "hold.resume_rate", ["not a whole number", "for example 100"];
    count_over_the_gateways_own: "[hold]\nunfinished_per_ip = 33" => "2:21", "hold.unfinished_per_ip", ["refuses the 33rd", "at most 32"];
    text_for_a_switch: "[listen]\nproxy_protocol = \"yes\"" => "2:18", "listen.proxy_protocol", ["write true or false"];
    misspelt_word: "[hold]\nresume = \"replya\"" => "2:10", "hold.resume", ["did you mean \"replay\"?"];
    unknown_word: "[tls]\nmin_version = \"1.1\"" => "2:15", "tls.min_version", ["did you mean"];
    switch_for_a_text: "[gateway]\nurl = true" => "2:7", "gateway.url", ["text in quotes"];
    misspelt_level: "[log]\nlevel = \"inof\"" => "2:9", "log.level", ["did you mean \"info\"?"];
    variable_that_is_not_set: "[gateway]\nurl = \"http://${NOPE}:3001\"" => "2:15", "gateway.url", ["no variable NOPE", "set NOPE"];
    variable_with_a_bad_value: "[hold]\nupgrade = \"${WAIT}\"" => "2:11", "hold.upgrade", ["with the environment: \"20s\"", "at most \"14s\""];
}

// Still more values.
broken! { MORE_VALUES
    words_for_a_count: "[limits]\nsessions = \"many\"" => "2:12", "limits.sessions", ["not a whole number", "for example 8000"];
    fraction_for_a_count: "[hold]\nresume_rate = 1.5" => "2:15", "hold.resume_rate", ["not a whole number"];
    count_beyond_any_machine: "[limits]\nsessions = 99999999999999999999" => "2:12", "limits.sessions", ["too large", "at most 10000000"];
    negative_duration: "[http]\nhold = \"-1s\"" => "2:8", "http.hold", ["not a duration", "\"30s\""];
    two_units: "[hold]\nmax = \"1m30s\"" => "2:7", "hold.max", ["not a duration", "a whole number and a unit"];
    unit_of_a_size_for_a_duration: "[hold]\nmax = \"10KiB\"" => "2:7", "hold.max", ["not a duration", "ms, s, m, h or d"];
    unit_of_a_duration_for_a_size: "[hold]\nbuffer = \"10s\"" => "2:10", "hold.buffer", ["not a size", "KiB"];
    rate_per_minute: "[limits]\nhandshakes_per_ip = \"20/m\"" => "2:21", "limits.handshakes_per_ip", ["per second", "\"20/s\""];
    rate_of_none: "[limits]\nhandshakes_per_ip = \"0/s\"" => "2:21", "limits.handshakes_per_ip", ["too small", "at least \"1/s\""];
    size_beyond_its_bound: "[hold]\nbuffer = \"2GiB\"" => "2:10", "hold.buffer", ["kept in memory for every session", "at most \"1GiB\""];
    stop_that_seems_to_hang: "[limits]\ndrain = \"2h\"" => "2:9", "limits.drain", ["seem to hang", "at most \"1h\""];
    list_of_numbers: "[limits]\norigins = [1]" => "2:12", "limits.origins[0]", ["text in quotes", "integer"];
    table_for_a_text: "[gateway]\nurl = { host = \"a\" }" => "2:7", "gateway.url", ["text in quotes"];
    two_brackets_for_a_section: "[[hold]]\nmax = \"1m\"" => "1:1", "hold", ["this is a section", "write [hold]"];
    variable_with_a_dash: "[gateway]\nurl = \"${GATEWAY-HOST}\"" => "2:8", "gateway.url", ["neither the name of a variable nor a file", "$${"];
    variable_without_end: "[gateway]\nurl = \"http://${GATEWAY_HOST\"" => "2:15", "gateway.url", ["without its }", "${NAME}"];
    secret_file_that_is_not_there: "[gateway]\nurl = \"${file:/nowhere/url}\"" => "2:8", "gateway.url", ["there is no file /nowhere/url", "a file that exists"];
    secret_file_without_a_name: "[gateway]\nurl = \"${file:}\"" => "2:8", "gateway.url", ["no file is named", "${file:/run/secrets/NAME}"];
    log_filter: "[log]\nlevel = \"holdline=loud\"" => "2:9", "log.level", ["not a log filter", "info,holdline::session=debug"];
    word_of_another_key: "[gateway]\nprotocol = \"tcp\"" => "2:12", "gateway.protocol", ["one of \"openclaw\", \"generic\""];
}

// Who may come in.
broken! { WHO_COMES_IN
    everything_public: "[auth]\npublic = [\"/\"]" => "2:11", "auth.public[0]", ["everything would be public", "modes = []"];
    header_that_clients_may_send: "[auth]\nuser_header = \"accept\"" => "2:15", "auth.user_header", ["removed from clients", "x-forwarded-user"];
    somebodys_address: "[auth]\nloopback_as = \"8.8.8.8\"" => "2:15", "auth.loopback_as", ["may be somebody's", "192.0.2.0/24"];
    no_directory: "[auth]\nstate_dir = \"\"" => "2:13", "auth.state_dir", ["no directory", "/var/lib/holdline"];
    directory_that_only_a_shell_knows: "[auth]\nstate_dir = \"~/holdline\"" => "2:13", "auth.state_dir", ["what ~ stands for", "write \"${HOME}/holdline\""];
    file_that_only_a_shell_knows: "[tls]\nclient_ca = \"~/ca.pem\"" => "2:13", "tls.client_ca", ["what ~ stands for", "write \"${HOME}/ca.pem\""];
    idle_beyond_the_end: "[auth]\nsession_idle = \"40d\"" => "2:16", "auth.session_idle", ["30d", "auth.session_max"];
    nobody_to_ask: "[auth]\nmodes = [\"forward\"]\n[auth.forward]\ncopy = []" => "3:1", "auth.forward", ["no service is named", "url = \"http://HOST:PORT/PATH\""];
    service_of_another_scheme: "[auth.forward]\nurl = \"ftp://sso\"" => "2:7", "auth.forward.url", ["not a URL", "http://127.0.0.1:4180"];
    header_that_clients_could_copy: "[auth.forward]\ncopy = [\"cookie\"]" => "2:9", "auth.forward.copy[0]", ["clients could send", "x-auth-request-groups"];
    user_without_a_hash: "[auth]\nmodes = [\"password\"]\nusers = [{ name = \"a\" }]" => "3:10", "auth.users[0]", ["hash is missing", "holdline user add NAME"];
    name_with_a_space: "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a b\", user = \"c\", hash = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]" => "3:20", "auth.tokens[0].name", ["no header can say", "visible ASCII"];
}

// Addresses.
broken! { ADDRESSES
    network_too_narrow: "[listen]\ntrusted_proxies = [\"10.0.0.0/33\"]" => "2:20", "listen.trusted_proxies[0]", ["not a network", "10.0.0.0/8"];
    plain_listener_on_a_public_one: "[listen]\nhttps = [\"0.0.0.0:443\"]\nhttp = [\"0.0.0.0:443\"]" => "3:9", "listen.http[0]", ["taken by listen.https[0] (0.0.0.0:443)", "another address or port"];
    gateway_on_the_admin_listener: "[gateway]\nurl = \"http://127.0.0.1:9180\"" => "2:7", "gateway.url", ["holdline itself (admin.listen", "gateway's own address"];
    route_to_ourselves: "[[route]]\npath = \"/a\"\nurl = \"http://[::1]:8443\"\n[listen]\nhttps = [\"[::]:8443\"]" => "3:7", "route[0].url", ["holdline itself"];
    address_without_list: "[listen]\nhttps = \"0.0.0.0:443\"" => "2:9", "listen.https", ["write [\"0.0.0.0:443\"]"];
    address_without_ip: "[listen]\nhttps = [\":443\"]" => "2:10", "listen.https[0]", ["write \"0.0.0.0:443\""];
    port_too_large: "[listen]\nhttps = [\"0.0.0.0:84430\"]" => "2:10", "listen.https[0]", ["not a port", "1 to 65535"];
    port_too_large_for_ipv6: "[listen]\nhttps = [\"[::]:84430\"]" => "2:10", "listen.https[0]", ["not a port", "1 to 65535"];
    address_without_port: "[listen]\nhttps = [\"::\"]" => "2:10", "listen.https[0]", ["write \"[::]:443\""];
    name_for_an_address: "[listen]\nhttps = [\"localhost:8443\"]" => "2:10", "listen.https[0]", ["write \"127.0.0.1:8443\""];
    nowhere_to_listen: "[listen]\nhttps = []" => "2:9", "listen.https", ["nobody could connect"];
    network_with_a_name: "[listen]\ntrusted_proxies = [\"lb\"]" => "2:20", "listen.trusted_proxies[0]", ["10.0.0.0/8"];
    https_gateway: "[gateway]\nurl = \"https://gw:3001\"" => "2:7", "gateway.url", ["not supported", "write \"http://gw:3001\""];
    gateway_without_scheme: "[gateway]\nurl = \"gw:3001\"" => "2:7", "gateway.url", ["needs its scheme", "write \"http://gw:3001\""];
    gateway_with_path: "[gateway]\nurl = \"http://gw:3001/ws\"" => "2:7", "gateway.url", ["no path", "write \"http://gw:3001\""];
    gateway_with_password: "[gateway]\nurl = \"http://a:b@gw\"" => "2:7", "gateway.url", ["no user or password", "write \"http://gw\""];
    gateway_port_out_of_range: "[gateway]\nurl = \"http://gw:99999\"" => "2:7", "gateway.url", ["1 to 65535"];
    probe_without_slash: "[gateway]\nprobe = \"health\"" => "2:9", "gateway.probe", ["\"/health\""];
    path_with_a_star: "[[route]]\npath = \"/ws/*\"\nurl = \"http://a\"" => "2:8", "route[0].path", ["write \"/ws\""];
    host_with_a_scheme: "[[route]]\nhost = \"https://a.example\"\nurl = \"http://a\"" => "2:8", "route[0].host", ["write \"a.example\""];
    path_without_slash: "[[route]]\npath = \"ws\"\nurl = \"http://a\"" => "2:8", "route[0].path", ["starts with /", "write \"/ws\""];
    path_that_never_matches: "[[route]]\npath = \"/a/../b\"\nurl = \"http://a\"" => "2:8", "route[0].path", ["never match"];
    host_with_port: "[[route]]\nhost = \"a.net:443\"\nurl = \"http://a\"" => "2:8", "route[0].host", ["no port", "write \"a.net\""];
    star_inside_a_host: "[[route]]\nhost = \"a.*.net\"\nurl = \"http://a\"" => "2:8", "route[0].host", ["not a host name", "*.example.net"];
    origin_with_path: "[limits]\norigins = [\"https://a.net/\"]" => "2:12", "limits.origins[0]", ["write \"https://a.net\""];
    origin_without_scheme: "[limits]\norigins = [\"a.net\"]" => "2:12", "limits.origins[0]", ["write \"https://a.net\""];
    public_admin: "[admin]\nlisten = \"0.0.0.0:9180\"" => "2:10", "admin.listen", ["this machine only", "write \"127.0.0.1:9180\""];
}

// Contradictions.
broken! { CONTRADICTIONS
    buffer_over_its_total: "[hold]\nbuffer = \"65MiB\"" => "2:10", "hold.buffer", ["hold.buffer_total (\"64MiB\")", "at most \"64MiB\""];
    total_under_a_buffer: "[hold]\nbuffer_total = \"1KiB\"" => "2:16", "hold.buffer_total", ["at least \"256KiB\""];
    page_after_the_hold: "[http]\npage_after = \"31s\"" => "2:14", "http.page_after", ["http.hold", "at most \"30s\""];
    frames_larger_before_than_after: "[limits]\npreauth_frame = \"26MiB\"" => "2:17", "limits.preauth_frame", ["at most \"25MiB\""];
    part_over_its_whole: "[limits]\nsessions = 5\nsessions_per_ip = 6" => "3:19", "limits.sessions_per_ip", ["at most 5"];
    listener_twice: "[listen]\nhttps = [\"[::1]:1\", \"[::1]:1\"]" => "2:21", "listen.https[1]", ["taken by listen.https[0] ([::1]:1)"];
    listener_within_another: "[listen]\nhttps = [\"127.0.0.1:1\"]\nhttp = [\"0.0.0.0:1\"]" => "3:9", "listen.http[0]", ["taken by listen.https[0]"];
    listener_on_the_admins: "[listen]\nhttps = [\"127.0.0.1:9180\"]" => "2:10", "listen.https[0]", ["taken by admin.listen"];
    admin_under_a_listener_for_both_families: "[listen]\nhttps = [\"[::]:9180\"]" => "2:10", "listen.https[0]", ["taken by admin.listen"];
    proxy_header_from_nobody: "[listen]\nproxy_protocol = true" => "2:18", "listen.proxy_protocol", ["trusted_proxies"];
    gateway_is_ourselves: "[gateway]\nurl = \"http://localhost:8443\"" => "2:7", "gateway.url", ["holdline itself", "listen.https 127.0.0.1:8443"];
    files_without_files: "[tls]\ncertificate = \"files\"" => "2:15", "tls.certificate", ["no files are named", "files = [{"];
    misspelt_certificate_and_nothing_else_about_it: "[tls]\ncertificate = \"filse\"\nfiles = []" => "2:15", "tls.certificate", ["did you mean \"files\"?"];
    route_without_url: "[[route]]\npath = \"/a\"" => "1:1", "route[0]", ["leads nowhere", "add url"];
    route_for_everything: "[[route]]\nurl = \"http://a\"" => "1:1", "route[0]", ["take everything", "host or path"];
    route_twice: "[[route]]\npath = \"/a\"\nurl = \"http://a\"\n[[route]]\npath = \"/a/\"\nurl = \"http://b\"" => "4:1", "route[1]", ["route[0] has the same"];
    splice_with_openclaw: "[hold]\nresume = \"splice\"" => "2:10", "hold.resume", ["handshake", "write \"auto\""];
}

#[test]
fn files_beside_the_development_certificate() {
    let found = errors("[tls]\nfiles = [{ key = \"/nowhere/key.pem\" }]");
    let expected = [
        "1:1 tls | files are named",
        "2:10 tls.files[0] | cert is missing",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    assert_eq!(found.len(), 2, "{found:#?}");
}

/// `[tls] certificate = "acme"` on line 2, `[acme]` on line 3.
macro_rules! broken_acme {
    ($($name:ident: $text:expr => $place:literal, $key:literal, [$($word:literal),+];)+) => {
        $(#[test] fn $name() {
            let text = format!("[tls]\ncertificate = \"acme\"\n[acme]\n{}", $text);
            broken(&text, $place, $key, &[$($word),+]);
        })+
    };
}

broken_acme! {
    acme_wildcard: "domains = [\"*.a.example\"]" => "4:12", "acme.domains[0]", ["*.a.example: CAs issue wildcards only by dns-01", "dns_hook"];
    acme_address: "domains = [\"192.0.2.1\"]" => "4:12", "acme.domains[0]", ["short-lived profile only", "profile = \"shortlived\""];
    acme_address_by_dns: "domains = [\"192.0.2.1\"]\nprofile = \"shortlived\"\nchallenges = [\"dns-01\"]\ndns_hook = [\"h\"]" => "4:12", "acme.domains[0]", ["no record for dns-01"];
    acme_http_without_listener: "domains = [\"a.example\"]\nchallenges = [\"http-01\"]" => "5:15", "acme.challenges[0]", ["needs a plain listener", "http = [\"0.0.0.0:80\""];
    acme_dns_without_hook: "domains = [\"a.example\"]\nchallenges = [\"dns-01\"]" => "5:15", "acme.challenges[0]", ["needs a command", "dns_hook = ["];
    acme_hook_without_dns: "domains = [\"a.example\"]\ndns_hook = [\"h\"]" => "5:12", "acme.dns_hook", ["never run"];
    acme_local_name: "domains = [\"gateway\"]" => "4:12", "acme.domains[0]", ["means something here only", "\"dev\""];
    acme_url_for_a_name: "domains = [\"https://a.example/\"]" => "4:12", "acme.domains[0]", ["write \"a.example\""];
    acme_name_twice: "domains = [\"a.example\", \"b.example a.example\"]" => "4:25", "acme.domains[1]", ["a.example is listed twice"];
    acme_unknown_ca: "domains = [\"a.example\"]\ndirectories = [\"letsencrpyt\"]" => "5:16", "acme.directories[0]", ["did you mean \"letsencrypt\"?"];
    acme_plain_ca: "domains = [\"a.example\"]\ndirectories = [\"http://ca.example\"]" => "5:16", "acme.directories[0]", ["https://"];
    acme_no_ca: "domains = [\"a.example\"]\ndirectories = []" => "5:15", "acme.directories", ["no CA is named"];
    acme_ca_with_customers: "domains = [\"a.example\"]\ndirectories = [\"zerossl\"]" => "5:16", "acme.directories[0]", ["customer's account", "directory = \"zerossl\""];
    acme_contact: "domains = [\"a.example\"]\ncontact = [\"nick\"]" => "5:12", "acme.contact[0]", ["e-mail"];
    acme_eab_without_key: "domains = [\"a.example\"]\neab = [{ kid = \"k\" }]" => "5:8", "acme.eab[0]", ["key_file is missing"];
    acme_no_challenge: "domains = [\"a.example\"]\nchallenges = []" => "5:14", "acme.challenges", ["without a challenge"];
    acme_comma: "domains = [\"a.example, b.example\"]" => "4:12", "acme.domains[0]", ["\"a.example b.example\" for one certificate", "\"a.example\", \"b.example\" for one each"];
    acme_private_address: "domains = [\"192.168.1.5\"]" => "4:12", "acme.domains[0]", ["private address"];
    acme_name_beyond_ascii: "domains = [\"bücher.example\"]" => "4:12", "acme.domains[0]", ["xn--"];
    acme_hook_no_list: "domains = [\"*.a.example\"]\nchallenges = [\"dns-01\"]\ndns_hook = \"/h\"" => "6:12", "acme.dns_hook", ["not a list", "[\"/h\"]"];
    acme_hook_in_one_text: "domains = [\"a.example\"]\nchallenges = [\"dns-01\"]\ndns_hook = [\"/bin/sh -c\"]" => "6:13", "acme.dns_hook[0]", ["[\"/bin/sh\", \"-c\"]"];
    acme_wildcard_without_hook: "domains = [\"*.a.example\"]\nchallenges = [\"dns-01\"]" => "5:15", "acme.challenges[0]", ["needs a command"];
    acme_state_file: "domains = [\"a.example\"]\nstate_dir = \"/etc/passwd\"" => "5:13", "acme.state_dir", ["is a file"];
    acme_eab_no_key: "domains = [\"a.example\"]\neab = [{ kid = \"k\", key_file = \"/etc/passwd\" }]" => "5:32", "acme.eab[0].key_file", ["base64url"];
    acme_update_no_section: "domains = [\"a.example\"]\ndns_update = true" => "5:14", "acme.dns_update", ["write [acme.dns_update]"];
    acme_name_server: "domains = [\"a.example\"]\ndns_resolvers = [\"ns\"]" => "5:18", "acme.dns_resolvers[0]", ["address of a name server"];
}

#[test]
fn a_file_pair_with_a_misspelt_key() {
    let found = errors("[tls]\ncertificate = \"files\"\nfiles = [{ ceert = \"a\" }]");
    let expected = [
        "3:10 tls.files[0] | cert is missing | add cert",
        "3:10 tls.files[0] | key is missing | add key",
        "3:12 tls.files[0].ceert | no such key | did you mean \"cert\"?",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn every_problem_of_a_file_is_reported_in_one_run() {
    let text = "\
[listen]
https = [\"0.0.0.0:443\", \":80\"]
[gateway]
url = \"https://gw\"
prob = \"tcp\"
[hold]
max = 10m
upgrade = \"20s\"
resume = \"repaly\"
[[route]]
path = \"ws\"
[acme]
domains = [\"a.example\"]
";
    let places: Vec<String> = errors(text)
        .iter()
        .filter_map(|line| line.split(" | ").next().map(str::to_owned))
        .collect();
    let expected = [
        "7:7 ",
        "2:25 listen.https[1]",
        "4:7 gateway.url",
        "5:1 gateway.prob",
        "8:11 hold.upgrade",
        "9:10 hold.resume",
        "10:1 route[0]",
        "11:8 route[0].path",
        "13:11 acme.domains",
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_file_full_of_problems_is_answered_at_once() {
    let keys: String = (0..60_000).map(|n| format!("k{n} = [!!]\n")).collect();
    let inline: String = (0..60_000).map(|n| format!("k{n} = 1, ")).collect();
    for text in [keys, format!("hold = {{ {inline} }}")] {
        let errors = check(&text, &Overrides::default()).verdict.unwrap_err();
        assert_eq!(errors.errors.len(), 200);
        assert!(errors.to_string().ends_with("200 errors or more\n"));
    }
}

#[test]
fn a_message_shows_the_line_and_counts_what_was_found() {
    let text = "[listen]\nhttps = [\"0.0.0.0:443\"]\n[hold]\nupgrade = \"20s\" # long\n";
    let errors = check(text, &Overrides::default()).verdict.unwrap_err();
    let expected = "\
error: hold.upgrade = \"20s\": too large: clients give up at 15 s
 --> holdline.toml:4:11
  |
4 | upgrade = \"20s\" # long
  |           ^^^^^
  = help: write at most \"14s\"

warning: listen.https[0] = \"0.0.0.0:443\": reachable from other machines, where nobody trusts the development certificate
 --> holdline.toml:2:10
  |
2 | https = [\"0.0.0.0:443\"]
  |          ^^^^^^^^^^^^^
  = help: set [tls] certificate = \"acme\" and [acme] domains, or \"files\" and name a certificate

1 error, 1 warning
";
    assert_eq!(errors.to_string(), expected);
}

// === secrets ===

#[test]
fn no_message_shows_a_secret() {
    const SECRET: &str = "sesame-open-4711";
    for users in [
        format!("[{{ name = \"a\", hash = \"{SECRET}\" }}]"),
        format!("[{{ name = \"\", hash = '{SECRET}' }}, {{ name = 3, hash = \"x\" }}]"),
        format!("[{{ name = \"a\", password = \"{SECRET}\" }}]"),
        format!("[{{ hash = \"{SECRET}\", name = \"a\" }} {{}}]"),
        format!("[{{ name = \"a\", hash = {SECRET} }}]"),
        format!("[{{ name = \"a\", hash = \"{SECRET} }}]"),
        format!("[{{ name = \"a\", hash = \"\"\"\n{SECRET}\"\"\" }}]"),
        format!("{{ hash = \"{SECRET}\" }}"),
    ] {
        let text = format!("[auth]\nmodes = [\"password\"]\nusers = {users}\n");
        let errors = check(&text, &Overrides::default()).verdict.unwrap_err();
        let shown = format!("{errors} {:?}", errors.errors);
        for part in ["sesame", "4711"] {
            assert!(!shown.contains(part), "{shown}");
        }
        assert!(
            shown.contains("auth.users") || shown.contains("not TOML"),
            "{shown}"
        );
    }
}

#[test]
fn a_broken_url_is_told_without_its_query() {
    let text = "[auth.forward]\nurl = \"ftp://sso/auth?apikey=xyzzy\"";
    let errors = check(text, &Overrides::default()).verdict.unwrap_err();
    let shown = format!("{errors} {:?}", errors.errors);
    assert!(shown.contains("ftp://sso/auth?****"), "{shown}");
    assert!(!shown.contains("xyzzy"), "{shown}");
}

#[test]
fn a_broken_hash_is_told_without_it() {
    let text = "[auth]\nmodes = [\"token\"]\ntokens = [{ name = \"a\", user = \"b\", hash = \"${WAIT}\" }]";
    let errors = check(text, &Overrides::default()).verdict.unwrap_err();
    let expected = "\
error: auth.tokens[0].hash: not a token's hash
 --> holdline.toml:3:44
  |
3 | tokens = [{ name = \"a\", user = \"b\", hash = \"*******\" }]
  |                                            ^^^^^^^^^
  = help: paste the line that `holdline token add NAME` prints: the token itself is not for the config
";
    assert!(errors.to_string().starts_with(expected), "{errors}");
}

#[test]
fn names_that_a_gateway_may_take_for_one() {
    let hash =
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let user = |name: &str| format!("{{ name = \"{name}\", hash = \"{hash}\" }}");
    let text = format!(
        "[auth]\nmodes = [\"password\"]\nusers = [\n{},\n{},\n]\n",
        user("nick@example.com"),
        user("Nick@Example.com"),
    );
    let words = ["only upper and lower case", "\"nick@example.com\""];
    broken(&text, "5:10", "auth.users[1].name", &words);
    // Beyond ASCII there is nothing to confuse: no header can say it.
    for name in ["nick\u{e9}", "n\u{456}ck", "nick ", "ni\u{200b}ck"] {
        let text = format!("[auth]\nmodes = [\"password\"]\nusers = [{}]\n", user(name));
        broken(&text, "3:19", "auth.users[0].name", &["no header can say"]);
    }
}

#[test]
fn a_hash_that_would_stall_the_machine() {
    let hash =
        "$argon2id$v=19$m=2097152,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let text =
        format!("[auth]\nmodes = [\"password\"]\nusers = [{{ name = \"a\", hash = \"{hash}\" }}]");
    broken(
        &text,
        "3:31",
        "auth.users[0].hash",
        &["at most m=1048576 (1 GiB)", "user add"],
    );
}
