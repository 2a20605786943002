//! A thread of this test has the filter, and the broker is asked for its connections. The
//! filter holds the thread that installs it, so no other process is needed.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream as StdTcpStream},
    os::fd::FromRawFd,
    sync::Mutex,
    thread,
};

use super::*;

/// Lets the kernel tell of this thread's `connect` calls.
#[expect(unsafe_code, reason = "no crate gives a listener")]
fn listen() -> OwnedFd {
    nix::sys::prctl::set_no_new_privs().unwrap();
    let word = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(libc::SYS_connect).unwrap();
    let mut program = [
        word(0x20, 0, 0, 0),
        word(0x15, 0, 1, number),
        word(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        word(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives until the kernel has copied it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = Errno::result(listener).unwrap();
    // SAFETY: the kernel has just made it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(listener.try_into().unwrap()) }
}

/// Runs a program that has the filter, beside its broker; returns what it returned, and what
/// the broker has refused.
async fn confined<T: Send + 'static>(
    network: Network,
    own: impl Fn(u32, StdUnixStream) + Send + Sync,
    program: impl FnOnce() -> T + Send + 'static,
) -> (T, Vec<String>) {
    let (sender, listener) = tokio::sync::oneshot::channel();
    let program = thread::spawn(move || {
        sender.send(listen()).unwrap();
        program()
    });
    let rules = ConnectRules {
        own_socket: "/run/outrigger/test/socket".into(),
        network,
    };
    let broker = Broker::new(listener.await.unwrap(), rules).unwrap();
    let refusals = Mutex::new(Vec::new());
    let served = broker.serve(|event| match event {
        BrokerEvent::Own { process, stream } => own(process, stream),
        BrokerEvent::Refused(refusal) => refusals.lock().unwrap().push(refusal.to_string()),
    });
    served.await.unwrap();
    (program.join().unwrap(), refusals.into_inner().unwrap())
}

fn nobody(_process: u32, _stream: StdUnixStream) {
    panic!("nobody connects to the server");
}

/// A server that says back what it hears, once for each connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
        }
    });
    address
}

fn say(mut stream: StdTcpStream) -> Vec<u8> {
    stream.write_all(b"ping").unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

#[tokio::test]
async fn what_is_granted_is_connected() {
    let address = echo();
    let (heard, refusals) = confined(Network::Outbound, nobody, move || {
        let waiting = say(StdTcpStream::connect(address).unwrap());
        // With a limit of time the socket does not wait.
        let limit = Duration::from_secs(10);
        let limited = say(StdTcpStream::connect_timeout(&address, limit).unwrap());
        (waiting, limited)
    })
    .await;
    assert_eq!(heard, (b"ping".to_vec(), b"ping".to_vec()));
    assert_eq!(refusals, [""; 0]);
}

#[tokio::test]
async fn what_is_not_granted_is_refused_and_told() {
    let address = echo();
    let (kind, refusals) = confined(Network::None, nobody, move || {
        StdTcpStream::connect(address).unwrap_err().kind()
    })
    .await;
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    assert_eq!(
        refusals,
        [format!("tcp {address} was refused: no network is granted")]
    );
}

#[tokio::test]
async fn a_list_holds_names_and_addresses() {
    let (granted, other) = (echo(), echo());
    let list = vec![format!("localhost:{}", granted.port()).parse().unwrap()];
    let (heard, refusals) = confined(Network::Only(list), nobody, move || {
        assert!(StdTcpStream::connect(other).is_err());
        say(StdTcpStream::connect(granted).unwrap())
    })
    .await;
    assert_eq!(heard, b"ping");
    assert_eq!(
        refusals,
        [format!(
            "tcp {other} was refused: it is not in the list of what is granted"
        )]
    );
}

#[tokio::test]
async fn the_servers_socket_is_reached_under_the_callers_pid() {
    let own = |process, mut stream: StdUnixStream| {
        assert_eq!(process, std::process::id());
        stream.write_all(b"hello").unwrap();
    };
    let (heard, refusals) = confined(Network::None, own, || {
        let path = "/run/outrigger/test/socket";
        let mut stream = StdUnixStream::connect(path).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        for other in ["/run/outrigger/test/socket2", "/run/docker.sock"] {
            let error = StdUnixStream::connect(other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        let absent = StdUnixStream::connect("/var/run/nscd/socket").unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        heard
    })
    .await;
    assert_eq!(heard, "hello");
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}

#[tokio::test]
async fn many_calls_at_once_are_answered() {
    let address = echo();
    let (heard, refusals) = confined(Network::Outbound, nobody, move || {
        let callers =
            (0..200).map(|_| thread::spawn(move || say(StdTcpStream::connect(address).unwrap())));
        let callers: Vec<_> = callers.collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap().len())
            .sum::<usize>()
    })
    .await;
    assert_eq!((heard, refusals.len()), (800, 0));
}

#[tokio::test]
async fn names_are_resolved_over_a_stream() {
    let (answer, refusals) = confined(Network::Outbound, nobody, || {
        // Any name server; nobody is asked.
        let mut stream = StdTcpStream::connect("192.0.2.1:53").unwrap();
        let question =
            b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01";
        let length = u16::try_from(question.len()).unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        stream.write_all(question).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    })
    .await;
    assert!(answer.ends_with(&[127, 0, 0, 1]), "{answer:?}");
    assert_eq!(refusals, [""; 0]);
}

#[tokio::test]
async fn addresses_that_cannot_be_read_are_refused() {
    let (errors, refusals) = confined(Network::Outbound, nobody, raw_connects).await;
    let expected = [
        Errno::EFAULT,
        Errno::EINVAL,
        Errno::EINVAL,
        Errno::EAFNOSUPPORT,
    ];
    assert_eq!(errors, expected);
    assert_eq!(refusals, [""; 0]);
}

/// Addresses at address 0, of no length, too long, of another family.
#[expect(unsafe_code, reason = "no wrapper connects to nonsense")]
fn raw_connects() -> Vec<Errno> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    let bytes = [0_u8; 256];
    let attempts = [
        (std::ptr::null(), 16),
        (bytes.as_ptr(), 0),
        (bytes.as_ptr(), 129),
        (bytes.as_ptr(), 16),
    ];
    let attempt = |(address, length): (*const u8, u32)| {
        // SAFETY: at worst the kernel says that there is nothing at that address.
        let answer = unsafe { libc::connect(fd.as_raw_fd(), address.cast(), length) };
        Errno::result(answer).unwrap_err()
    };
    attempts.into_iter().map(attempt).collect()
}
