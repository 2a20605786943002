//! Which addresses does a name have? Asks this machine's resolver on behalf of a program that
//! may not reach a name server, and speaks DNS over a stream with it (RFC 1035, RFC 7766).

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE, rdata::RData,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};

use super::rules::RefusalReason;

/// Lookups of one program at a time; each takes a thread of the server while it waits.
const LOOKUPS_MAX: usize = 4;
/// How long the resolver may take.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// How long a program may keep silent on its connection to the resolver.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Questions on one connection; the C library asks two for a name.
const QUESTIONS_MAX: usize = 256;
/// The longest question: a name of 255 bytes and some options.
const QUESTION_BYTES_MAX: u16 = 1024;
/// Answers are new each time, so that nobody keeps them.
const TTL_S: u32 = 0;
/// Addresses that are remembered of one name.
const REMEMBERED_MAX: usize = 256;

/// Resolves names, and remembers what it has said where that decides about connections.
#[derive(Debug)]
pub(super) struct Names {
    lookups: Semaphore,
    said: Mutex<HashMap<String, HashSet<IpAddr>>>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            lookups: Semaphore::new(LOOKUPS_MAX),
            said: Mutex::default(),
        }
    }
}

impl Names {
    /// The addresses of a name, none if there is no such name.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let closed = |_closed| io::Error::other("the resolver is closed");
        let _turn = self.lookups.acquire().await.map_err(closed)?;
        let found = timeout(LOOKUP_MAX, lookup_host((name, 0))).await;
        match found.map_err(io::Error::from)? {
            Ok(found) => {
                // One address may come several times, for several kinds of sockets.
                let unique: HashSet<_> = found.map(|found| found.ip().to_canonical()).collect();
                Ok(unique.into_iter().collect())
            }
            // The C library's words; the error has no other mark.
            Err(error) if error.to_string().contains("Temporary failure") => Err(error),
            Err(_no_such_name) => Ok(Vec::new()),
        }
    }

    /// Whether one of the names has the address: one that was told before, or has it now.
    pub(super) async fn any_has(&self, names: &[String], address: IpAddr) -> bool {
        if names.iter().any(|name| self.has_said(name, address)) {
            return true;
        }
        for name in names {
            // The program may have the address from a file, or from earlier.
            let found = self.resolve(name).await.unwrap_or_default();
            self.remember(name, &found);
            if found.contains(&address) {
                return true;
            }
        }
        false
    }

    fn has_said(&self, name: &str, address: IpAddr) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(name).is_some_and(|said| said.contains(&address))
    }

    /// Names change between answers, so all that were told stay good.
    fn remember(&self, name: &str, addresses: &[IpAddr]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said.entry(name.to_owned()).or_default();
        if known.len() + addresses.len() > REMEMBERED_MAX {
            known.clear();
        }
        known.extend(addresses);
    }

    /// Answers what comes on a connection, until its other end closes it or says something
    /// that is no question. `permit` says which names may be resolved, `refused` is told of
    /// the others, and `remember` whether the answers decide about connections.
    pub(super) async fn serve(
        &self,
        mut stream: UnixStream,
        permit: impl Fn(&str) -> Result<(), RefusalReason> + Send + Sync,
        refused: impl Fn(&str, RefusalReason) + Send + Sync,
        remember: bool,
    ) -> io::Result<()> {
        let mut question = Vec::new();
        for _ in 0..QUESTIONS_MAX {
            let Ok(length) = timeout(SILENCE_MAX, stream.read_u16()).await else {
                return Ok(());
            };
            let length = length?;
            if length > QUESTION_BYTES_MAX {
                return Ok(());
            }
            question.resize(usize::from(length), 0);
            timeout(SILENCE_MAX, stream.read_exact(&mut question)).await??;
            let Ok(asked) = Packet::parse(&question) else {
                return Ok(());
            };
            let answer = self.answer(asked, &permit, &refused, remember).await;
            let answer = answer.build_bytes_vec().map_err(io::Error::other)?;
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let message = [&length.to_be_bytes()[..], &answer].concat();
            timeout(SILENCE_MAX, stream.write_all(&message)).await??;
        }
        Ok(())
    }

    async fn answer<'a>(
        &self,
        asked: Packet<'a>,
        permit: &(impl Fn(&str) -> Result<(), RefusalReason> + Send + Sync),
        refused: &(impl Fn(&str, RefusalReason) + Send + Sync),
        remember: bool,
    ) -> Packet<'a> {
        let opcode = asked.opcode();
        let mut reply = Packet::new_reply(asked.id());
        reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
        let [question] = &asked.questions[..] else {
            *reply.rcode_mut() = RCODE::FormatError;
            return reply;
        };
        reply.questions.push(question.clone());
        if opcode != OPCODE::StandardQuery {
            *reply.rcode_mut() = RCODE::NotImplemented;
            return reply;
        }
        let name = question.qname.to_string().to_ascii_lowercase();
        if !is_host_name(&name) {
            *reply.rcode_mut() = RCODE::NameError;
            return reply;
        }
        if let Err(reason) = permit(&name) {
            refused(&name, reason);
            *reply.rcode_mut() = RCODE::Refused;
            return reply;
        }
        match self.resolve(&name).await {
            Ok(found) if found.is_empty() => *reply.rcode_mut() = RCODE::NameError,
            Ok(found) => {
                if remember {
                    self.remember(&name, &found);
                }
                reply.answers = records(question, &found);
            }
            Err(_error) => *reply.rcode_mut() = RCODE::ServerFailure,
        }
        reply
    }
}

/// The addresses of the kind that was asked for. There is nothing of other kinds.
fn records<'a>(question: &Question<'a>, addresses: &[IpAddr]) -> Vec<ResourceRecord<'a>> {
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_S, data);
    let fitting = addresses
        .iter()
        .filter_map(|address| match (address, question.qtype) {
            (IpAddr::V4(address), QTYPE::TYPE(TYPE::A)) => Some(RData::A((*address).into())),
            (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA)) => Some(RData::AAAA((*address).into())),
            _ => None,
        });
    fitting.map(record).collect()
}

/// What the machine's resolver is asked, which also reads files, is at least a name.
fn is_host_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use simple_dns::{Name, QCLASS};

    use super::*;

    async fn ask(name: &str, kind: TYPE, permitted: bool) -> (RCODE, Vec<String>) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let names = Names::default();
        let permit = |_name: &str| {
            let refused = Err(RefusalReason::NotListed);
            if permitted { Ok(()) } else { refused }
        };
        let refused = |name: &str, _reason| assert!(!permitted, "{name}");
        let serve = names.serve(theirs, permit, refused, true);
        let client = async {
            let mut packet = Packet::new_query(7);
            let name = Name::new(name).unwrap().into_owned();
            let class = QCLASS::CLASS(CLASS::IN);
            let question = Question::new(name, QTYPE::TYPE(kind), class, false);
            packet.questions.push(question);
            let bytes = packet.build_bytes_vec().unwrap();
            ours.write_u16(bytes.len().try_into().unwrap())
                .await
                .unwrap();
            ours.write_all(&bytes).await.unwrap();
            let mut reply = vec![0; ours.read_u16().await.unwrap().into()];
            ours.read_exact(&mut reply).await.unwrap();
            drop(ours);
            let reply = Packet::parse(&reply).unwrap();
            assert_eq!(reply.id(), 7);
            assert_eq!(reply.questions.len(), 1);
            let answers = reply.answers.iter().map(|answer| match &answer.rdata {
                RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
                RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
                other => format!("{other:?}"),
            });
            (reply.rcode(), answers.collect())
        };
        let (served, answer) = tokio::join!(serve, client);
        drop(served);
        answer
    }

    #[tokio::test]
    async fn names_are_resolved_as_this_machine_does() {
        let (code, answers) = ask("LocalHost", TYPE::A, true).await;
        assert_eq!(
            (code, &answers[..]),
            (RCODE::NoError, &["127.0.0.1".to_owned()][..])
        );
        let (code, answers) = ask("localhost", TYPE::TXT, true).await;
        assert_eq!((code, answers.len()), (RCODE::NoError, 0));
    }

    #[tokio::test]
    async fn names_that_are_not_permitted_are_refused() {
        let (code, answers) = ask("localhost", TYPE::A, false).await;
        assert_eq!((code, answers.len()), (RCODE::Refused, 0));
    }

    #[tokio::test]
    async fn what_is_no_question_ends_the_connection() {
        for bytes in [&[0, 3, 1, 2, 3][..], &[0xff, 0xff], &[0, 0]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).await.unwrap();
            let names = Names::default();
            let served = names.serve(theirs, |_| Ok(()), |_, _| {}, false).await;
            assert!(served.is_ok(), "{bytes:?}: {served:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_has_the_address_now_is_enough() {
        let names = Names::default();
        let has = |address: &'static str| {
            let names = &names;
            async move {
                let list = ["localhost".to_owned()];
                names.any_has(&list, address.parse().unwrap()).await
            }
        };
        assert!(has("127.0.0.1").await);
        assert!(names.has_said("localhost", "127.0.0.1".parse().unwrap()));
        assert!(!has("127.0.0.2").await);
    }
}
