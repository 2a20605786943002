//! A thread of this test has the filter, and the broker is asked for its connections. The
//! filter holds the thread that installs it, so no other process is needed.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream as StdTcpStream},
    os::fd::FromRawFd,
    sync::{Mutex, mpsc},
    thread,
};

use tokio::{runtime, sync::oneshot};

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
    let (sender, listener) = oneshot::channel();
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
fn raw_connects() -> Vec<Errno> {
    let bytes = [0_u8; 256];
    let attempts = [
        (std::ptr::null(), 16),
        (bytes.as_ptr(), 0),
        (bytes.as_ptr(), 129),
        (bytes.as_ptr(), 16),
    ];
    let attempt = |(address, length): (*const u8, u32)| raw_connect(address, length);
    attempts.into_iter().map(attempt).collect()
}

/// Why a socket is not connected to an address that is none.
#[expect(unsafe_code, reason = "no wrapper connects to nonsense")]
fn raw_connect(address: *const u8, length: u32) -> Errno {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    // SAFETY: at worst the kernel says that there is nothing at that address.
    let answer = unsafe { libc::connect(fd.as_raw_fd(), address.cast(), length) };
    Errno::result(answer).unwrap_err()
}

/// All runs on one thread, which would be held up if it read the callers' memory itself; and of
/// those that wait for callers there is one more than one program may take.
#[test]
fn whose_memory_is_busy_holds_up_nobody_else() {
    let Some((page, mut readers)) = busy_page() else {
        return;
    };
    let address = echo();
    let (tell, told) = mpsc::channel();
    let (begin, begun) = oneshot::channel();
    let serving = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(STEPS_MAX + 1)
            .enable_all()
            .build();
        let busy = confined(Network::Outbound, nobody, move || {
            let call = move || raw_connect(page as *const u8, 16);
            let callers: Vec<_> = (0..2 * STEPS_MAX).map(|_| thread::spawn(call)).collect();
            let errors = callers.into_iter().map(|caller| caller.join().unwrap());
            errors.collect::<Vec<_>>()
        });
        let other = async move {
            begun.await.unwrap();
            let connect = move || say(StdTcpStream::connect(address).unwrap());
            let (heard, _) = confined(Network::Outbound, nobody, connect).await;
            tell.send(heard).unwrap();
        };
        runtime
            .unwrap()
            .block_on(async { tokio::join!(busy, other) })
    });
    // The kernel says that somebody waits for the page.
    readers.read_exact(&mut [0; 32]).unwrap();
    begin.send(()).unwrap();
    let heard = told.recv_timeout(Duration::from_mins(1));
    drop(readers);
    let ((errors, _), ()) = serving.join().unwrap();
    assert_eq!(heard.as_deref(), Ok(&b"ping"[..]));
    assert_eq!(errors, [Errno::EAFNOSUPPORT; 2 * STEPS_MAX]);
}

/// A page that whoever reads it waits for until the file is closed, and then is full of zeros;
/// `None` where the kernel lets nobody be made to wait, as it does without privileges.
#[expect(unsafe_code, reason = "no crate has userfaultfd")]
fn busy_page() -> Option<(usize, File)> {
    const PAGE: usize = 4096;
    const API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
    const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
    // SAFETY: it takes no pointers.
    let readers = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let readers = Errno::result(readers).ok()?.try_into().unwrap();
    // SAFETY: it was made just now, and nobody else knows it.
    let readers = unsafe { File::from_raw_fd(readers) };
    // SAFETY: a new page, somewhere.
    let page = unsafe {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), PAGE, rights, flags, -1, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    let mut version = [0xaa_u64, 0, 0];
    let mut range = [page as u64, PAGE as u64, 1, 0];
    for (request, argument) in [(API, version.as_mut_ptr()), (REGISTER, range.as_mut_ptr())] {
        // SAFETY: the requests' numbers say the sizes of these structs of integers.
        let done = unsafe { libc::ioctl(readers.as_raw_fd(), request, argument) };
        Errno::result(done).unwrap();
    }
    Some((page as usize, readers))
}
