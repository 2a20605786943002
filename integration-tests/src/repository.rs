//! A plugin repository: an HTTP server that answers what a story wants, well or badly, and
//! remembers who asked.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// More of a request's head is not read.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// How a path is answered. Other paths are a 404.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// With content of this type.
    Content(&'static str, Vec<u8>),
    /// With a status that is no success.
    Status(u16),
    /// With a redirect.
    Redirect(String),
    /// With a body that is said to be this long, of which nothing comes.
    Announced(u64),
    /// With a body that never ends.
    Endless,
    /// Not at all, and the connection stays.
    Silence,
}

/// What a client asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The path, as it was sent.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// A repository that listens until it is dropped.
#[derive(Debug)]
pub struct PluginRepository {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// It is unreachable, as far as clients can tell.
    down: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    asked: Vec<Asked>,
    connections: usize,
    silent: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

impl PluginRepository {
    /// Starts an empty one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::<Shared>::default();
        let server = shared.clone();
        let thread = thread::spawn(move || serve(&listener, &server));
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a path is answered from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.shared.state().answers.insert(path.to_owned(), answer);
    }

    /// Answers a path with source from now on.
    pub fn source(&self, path: &str, text: &str) {
        self.answer(path, Answer::Content("text/plain", text.into()));
    }

    /// Answers nobody, or everybody again.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// What it was asked for, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// How many connections were made to it, also while it was down.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }
}

impl Drop for PluginRepository {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
        self.shared.state().silent.clear();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.state().connections += 1;
        if !shared.down.load(Ordering::SeqCst) {
            let shared = shared.clone();
            // Who goes away early is no failure of the story.
            thread::spawn(move || drop(respond(stream, &shared)));
        }
    }
}

fn respond(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let asked = read_head(&stream)?;
    let answer = {
        let mut state = shared.state();
        let answer = state.answers.get(&asked.path).cloned();
        state.asked.push(asked);
        answer.unwrap_or(Answer::Status(404))
    };
    match answer {
        Answer::Content(content_type, body) => {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            )?;
            stream.write_all(&body)
        }
        Answer::Status(status) => write!(
            stream,
            "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        Answer::Redirect(location) => write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        ),
        Answer::Announced(length) => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            shared.state().silent.push(stream);
            Ok(())
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            let chunk = vec![b'#'; 64 * 1024];
            loop {
                stream.write_all(&chunk)?;
            }
        }
        Answer::Silence => {
            shared.state().silent.push(stream);
            Ok(())
        }
    }
}

fn read_head(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut lines = BufReader::new(stream.take(HEAD_BYTES_MAX)).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    Ok(Asked {
        path,
        authorization,
    })
}
