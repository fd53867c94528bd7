//! Bounds, and what a person is told, against sockets that answer what no real server would.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use super::*;

/// A server that answers each connection with these bytes, and says nothing more.
fn answering(answer: Vec<u8>) -> Arc<ServerSettings> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = ServerUrl::parse(&format!("http://{}/base/", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            if stream.write_all(&answer).is_err() {
                continue;
            }
            thread::spawn(move || stream.read(&mut [0; 1]));
        }
    });
    Arc::new(ServerSettings { url, ca_file: None, certificate: None, server_name: None, max_answer: 1000 })
}

/// How long the server may take: a thread of this process, on a machine that does other things too.
const WITHIN: Duration = Duration::from_secs(2);

async fn ask(answer: &str) -> Result<Answer, RegistryError> {
    let client = HttpClient::new(&answering(answer.as_bytes().to_vec())).unwrap();
    client.send(Call::get("/v1/x?token=hidden").within(WITHIN)).await
}

#[tokio::test]
async fn statuses_mean_what_they_say_and_answers_are_bounded() {
    let with = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let good = ask(&with("200 OK", "[1,2]")).await.unwrap().ok().unwrap();
    assert_eq!(good.json::<Vec<u8>>().unwrap(), [1, 2]);
    assert!(matches!(good.json::<Vec<String>>(), Err(RegistryError::Malformed(_))));
    for (status, label) in [
        ("403 Forbidden", "denied"),
        ("401 No", "denied"),
        ("429 Slow", "overloaded"),
        ("500 Oh", "unreachable"),
        ("503 Away", "unreachable"),
        ("404 What", "malformed"),
    ] {
        let error = ask(&with(status, "no\nleader")).await.unwrap().ok().unwrap_err();
        assert_eq!(error.label(), label);
        let text = error.to_string();
        assert!(
            text.contains("GET /v1/x: ") && text.contains("no\\nleader") && !text.contains("hidden"),
            "{text}"
        );
    }
    let long = ask(&with("200 OK", &"x".repeat(1001))).await.unwrap_err();
    assert!(matches!(&long, RegistryError::Malformed(text) if text.contains("max_answer")), "{long}");
    let short = ask("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap_err();
    assert!(matches!(&short, RegistryError::Unreachable(text) if text.contains("within")), "{short}");
    assert!(ask("SSH-2.0-x\r\n").await.is_err());
}

/// A server that answers each connection with so many kilobytes, one at a time with a pause before each.
fn dripping(count: usize, pause: Duration) -> Arc<ServerSettings> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = ServerUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", count * 1000).unwrap();
            let mut drops = (0..count).map(|_| {
                thread::sleep(pause);
                stream.write_all(&[b'x'; 1000])
            });
            // Who has enough of it closes.
            let _enough = drops.find(Result::is_err);
        }
    });
    Arc::new(ServerSettings { url, ca_file: None, certificate: None, server_name: None, max_answer: 100_000 })
}

#[tokio::test]
async fn a_long_answer_may_take_longer_than_its_beginning_while_it_goes_on() {
    let server = dripping(60, Duration::from_millis(50));
    let client = HttpClient::new(&server).unwrap();
    let answer = client.send(Call::get("/").within(WITHIN)).await.unwrap();
    assert_eq!(answer.body.len(), 60_000);
    // What is written is short, and who writes has to know by then.
    let late = client.send(Call::new(Method::PUT, "/").within(WITHIN)).await.unwrap_err();
    assert_eq!(late.label(), "unreachable");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_answer_and_its_length_does_not() {
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    let body = |pauses: &'static [u64], size: usize| {
        StreamBody::new(stream::iter(pauses).then(move |pause| async move {
            tokio::time::sleep(Duration::from_secs(*pause)).await;
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; size])))
        }))
    };
    let (much, drop) = (10_000, 1);
    assert!(matches!(flowing(body(&[9; 30], much), SILENCE).await, Ok(whole) if whole.len() == 30 * much));
    assert!(matches!(flowing(body(&[9, 11, 9], much), SILENCE).await, Err(Broken::Silent)));
    let began = tokio::time::Instant::now();
    assert!(matches!(flowing(body(&[1; 300], drop), SILENCE).await, Err(Broken::Silent)), "it drips");
    assert!(began.elapsed() <= SILENCE, "{:?}", began.elapsed());
    assert!(
        matches!(flowing(body(&[3; 3], drop), SILENCE).await, Ok(whole) if whole.len() == 3),
        "it is short"
    );
}

#[tokio::test]
async fn an_answer_that_stops_is_given_up() {
    let began = std::time::Instant::now();
    let fault = ask("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(15) && fault.label() == "unreachable", "{fault}");
}

async fn read(answer: &str) -> Result<Result<(Vec<u8>, usize), Answer>, RegistryError> {
    let client = HttpClient::new(&answering(answer.as_bytes().to_vec())).unwrap();
    let call = Call::get("/v1/x?token=hidden").within(WITHIN);
    client.read(call, |_, body| serde_json::from_reader(body)).await
}

#[tokio::test]
async fn what_is_read_while_it_comes_has_the_same_bounds() {
    let with = |status: &str, length: usize, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    assert_eq!(read(&with("200 OK", 5, "[1,2]")).await.unwrap().unwrap(), (vec![1, 2], 5));
    let other = read(&with("403 Forbidden", 2, "no")).await.unwrap().unwrap_err();
    assert_eq!(other.ok().unwrap_err().label(), "denied");
    let error = |answer: String| async move { read(&answer).await.err().unwrap().to_string() };
    let long = format!("[{}1]", "1,".repeat(600));
    assert!(error(with("200 OK", long.len(), &long)).await.contains("max_answer"));
    assert!(error(with("200 OK", 9, "[1,2")).await.contains("the answer stopped"), "it is silent half-way");
    assert!(error(with("200 OK", 4, "[1,2")).await.contains("EOF"), "it ends half-way");
    assert!(error(with("200 OK", 5, "[1,x]")).await.contains("GET /v1/x: "));
    assert!(
        error("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\nx".into())
            .await
            .contains("broke off")
    );
}

#[tokio::test]
async fn a_connection_that_nobody_takes_up_is_given_up_soon() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    // Whoever comes when the queue is full is not answered at all.
    let short = Duration::from_millis(300);
    let queue = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, short).ok());
    let _queue: Vec<_> = queue.take(16).collect();
    let url = ServerUrl::parse(&format!("http://{address}")).unwrap();
    let server =
        ServerSettings { url, ca_file: None, certificate: None, server_name: None, max_answer: 1000 };
    let began = std::time::Instant::now();
    let call = Call::get("/").within(Duration::from_secs(60));
    let fault = HttpClient::new(&server.into()).unwrap().send(call).await.unwrap_err();
    assert!(began.elapsed() < CONNECT + Duration::from_secs(8), "{:?}: {fault}", began.elapsed());
    assert_eq!(fault.label(), "unreachable");
}

/// What is sent and not taken is what is sent into a network that is cut: it stays unacknowledged, or unsent.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_takes_nothing_more_is_given_up_within_seconds() {
    use tokio::io::AsyncWriteExt;
    // The kernel makes the connections that nobody accepts, and takes what fits into its buffers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = ServerUrl::parse(&format!("http://{address}")).unwrap();
    let server =
        ServerSettings { url, ca_file: None, certificate: None, server_name: None, max_answer: 1000 };
    let more_than_fits = Bytes::from(vec![0; 32 << 20]);
    let call = Call::new(Method::PUT, "/").body("application/octet-stream", more_than_fits.clone());
    let client = HttpClient::new(&server.into()).unwrap();
    let asked = client.send(call.within(Duration::from_secs(60)));
    let written = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        end_when_dead(&stream).unwrap();
        tokio::time::timeout(Duration::from_secs(60), stream.write_all(&more_than_fits)).await
    };
    let began = std::time::Instant::now();
    let (asked, written) = tokio::join!(asked, written);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(asked.unwrap_err().label(), "unreachable");
    assert_eq!(written.unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_secret_that_comes_back_is_shown_to_nobody() {
    let token = "6ca2b0f4-1d0c-4a5e-9b3c-0f3f5f0c7e11";
    let body = format!("{}x-token: {token}, authorization: Bearer {token}.", token.repeat(20));
    for (status, body) in [("403 No", body.clone()), ("200 OK", format!("\"{body}\""))] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let server = answering(answer.into_bytes());
        for call in [
            Call::get("/v1/x").header(header::AUTHORIZATION, &format!("Bearer {token}"), true),
            Call::get("/v1/x").body("application/json", "{}").secret(token),
        ] {
            assert!(!format!("{call:?}").contains(token), "{call:?}");
            let answer = HttpClient::new(&server).unwrap().send(call).await.unwrap();
            let shown = [answer.said(), answer.fault().to_string(), format!("{:?}", answer.secrets)];
            let unread = answer.json::<Vec<u8>>().unwrap_err().to_string();
            for text in shown.iter().chain([&unread]) {
                assert!(!text.contains(&token[..9]), "{text}");
            }
            assert!(answer.said().contains("x-token: …, authorization: Bearer …."), "{}", answer.said());
        }
    }
}

#[tokio::test]
async fn what_a_server_says_is_one_line_and_its_quotes_are_as_they_are() {
    let body = "Permission denied: token with AccessorID '00000002' lacks \"service:read\"\nat \u{1b}[1m\\";
    let answer = format!("HTTP/1.1 403 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let client = HttpClient::new(&answering(answer.into_bytes())).unwrap();
    let said = client.send(Call::get("/v1/x")).await.unwrap().said();
    let shown = r#"Permission denied: token with AccessorID '00000002' lacks "service:read"\nat \u{1b}[1m\\"#;
    assert_eq!(said, shown);
}

#[test]
fn a_variable_may_lack_the_scheme() {
    let read = |said: &str, secure| ServerUrl::from_variable(said, secure, "http://127.0.0.1:4646");
    assert_eq!(read("", true), "http://127.0.0.1:4646");
    assert_eq!(read("10.0.0.1:4646", false), "http://10.0.0.1:4646");
    assert_eq!(read("10.0.0.1:8501", true), "https://10.0.0.1:8501");
    assert_eq!(read("https://nomad:4646", false), "https://nomad:4646");
}

#[test]
fn addresses_of_servers() {
    for (text, shown) in [
        ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("https://consul.example/", "https://consul.example:443"),
        ("http://[::1]/eureka/", "http://[::1]:80/eureka"),
    ] {
        assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown);
    }
    for wrong in
        ["127.0.0.1:8500", "ftp://x", "http://u:p@x", "http://x?y", "http://", "http://x:0", "http://x/a b"]
    {
        assert!(ServerUrl::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_secret_that_goes_over_plain_http_to_another_host_is_warned_of_by_its_key() {
    use weft_core::config::{SourceFile, read};
    let warnings = |text: &str| {
        let source = SourceFile::new("weft.toml", text.to_owned());
        let outcome = read(&source, |section| {
            let server = ServerSettings::read(section, "http://127.0.0.1:8500")?;
            let _known: [Option<String>; 2] = [section.read("token_file"), section.read("token_env")];
            let keys = ["token_file", "token_env"];
            ServerSettings::warn_of_overheard(section, [&server], &keys, "SOME_TOKEN");
            Some(())
        });
        assert!(outcome.value.is_some() && outcome.faults.iter().all(|fault| !fault.is_error()));
        outcome.faults.iter().map(|fault| format!("{} {}", fault.place, fault.message)).collect::<Vec<_>>()
    };
    let [warning] = &warnings("address = \"http://consul.example:8500\"\ntoken_file = \"/t\"\n")[..] else {
        panic!("one warning");
    };
    assert!(
        warning.starts_with("weft.toml:2:1 the secret of `token_file` goes over plain HTTP to"),
        "{warning}"
    );
    assert!(warning.contains("http://consul.example:8500"), "{warning}");
    for (address, count) in [
        ("http://10.0.0.1", 1),
        ("http://[2001:db8::1]:8500", 1),
        ("http://localhost.example", 1),
        ("https://consul.example", 0),
        ("http://127.0.0.2:8500", 0),
        ("http://[::1]:8500", 0),
        ("http://localhost:8500", 0),
    ] {
        let told = warnings(&format!("address = \"{address}\"\n"));
        assert_eq!(told.len(), count, "{address}");
        assert!(told.iter().all(|warning| warning.contains("`SOME_TOKEN`")), "{told:?}");
    }
}
