//! Plugins that try to get out: every attempt in `escapes/` runs as a request trigger of a real
//! server, and is judged by what it has done to canaries, not only by its own word.
//!
//! `--sandbox strict` must hold against all of them, as root and as an ordinary user. Which ones
//! get out without the sandbox, or without one of its layers, stands in `docs/escapes.md`: that
//! table shows that the attempts are real and that no layer is decoration. `make escapes` makes
//! it anew; here only its first column is compared, since the rest takes many minutes.

mod attempts;
mod canaries;
mod house;
mod snapshot;
mod table;
mod victim;

use futures::future::join_all;
use outrigger_integration_tests::Builder;

use self::{
    attempts::Attempt,
    house::{Confinement, House, Outcome, User, say},
};
use crate::server;

/// What is known to get out of `strict`, and why. One that does not any more fails the story too,
/// so that this list says what is true.
const OPEN: [(&str, &str); 0] = [];

/// Who runs servers that are not root's: nobody.
const ORDINARY: u32 = 65_534;

#[tokio::test]
async fn nothing_escapes_from_strict_as_root() {
    if !nix::unistd::geteuid().is_root() {
        say("skipped: these tests do not run as root");
        return;
    }
    nothing_escapes(Confinement::strict(), User::Ours).await;
}

#[tokio::test]
async fn nothing_escapes_from_strict_as_an_ordinary_user() {
    let Some(user) = ordinary() else { return };
    nothing_escapes(Confinement::strict(), user).await;
}

/// A test of the attempts: those that the table names get out, and no others.
#[tokio::test]
async fn without_the_sandbox_they_escape() {
    let Some(user) = ordinary() else { return };
    let attempts = Attempt::all();
    let outcomes = outcomes(Confinement::off(), user, &attempts).await;
    table::check_column("off", &outcomes);
}

/// The whole table; `ESCAPES=write` stores it, else it is compared.
#[tokio::test]
#[ignore = "takes many minutes: make escapes"]
async fn the_table_of_attempts_and_layers_is_true() {
    let Some(user @ User::Other(_)) = ordinary() else {
        say("skipped: these tests do not run as root");
        return;
    };
    let attempts = Attempt::all();
    let mut columns = Vec::new();
    // Most of the time passes until deadlines do, so that a few servers fit beside each other.
    for some in Confinement::all().chunks(5) {
        let runs = some.iter().map(async |confinement| {
            let user = if confinement.as_root {
                User::Ours
            } else {
                user
            };
            let outcomes = outcomes(confinement.clone(), user, &attempts).await;
            (confinement.name.clone(), outcomes)
        });
        columns.extend(join_all(runs).await);
    }
    for (column, outcomes) in &columns {
        let escaped = outcomes.iter().filter(|outcome| outcome.escaped()).count();
        say(&format!("{column}: {escaped} of {} escape", outcomes.len()));
    }
    table::check(&attempts, &columns);
}

/// A server of an ordinary user, if there can be one: its workers are that user's too.
pub(crate) async fn ordinary_server() -> Option<Builder> {
    let User::Other(user) = ordinary()? else {
        return Some(server());
    };
    let environment = house::environment(Some(user)).await;
    Some(server().copied_environment(&environment).as_user(user))
}

/// Not root; `None` where there is nobody else and no way to become one.
fn ordinary() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return Some(User::Ours);
    }
    match house::may_run_as(ORDINARY) {
        Ok(()) => Some(User::Other(ORDINARY)),
        Err(why) => {
            say(&format!(
                "skipped: user {ORDINARY} cannot run the server: {why}"
            ));
            None
        }
    }
}

async fn nothing_escapes(confinement: Confinement, user: User) {
    let attempts = Attempt::all();
    let outcomes = outcomes(confinement, user, &attempts).await;
    let held = outcomes.iter().filter(|outcome| !outcome.escaped()).count();
    say(&format!("{held} of {} attempts were held", outcomes.len()));
    let mut failures = Vec::new();
    for (attempt, outcome) in attempts.iter().zip(&outcomes) {
        let tolerated = attempt.is_tolerated();
        let word = if tolerated { &[][..] } else { &outcome.word };
        let bad = word.iter().chain(&outcome.effects).chain(&outcome.damage);
        if let Some((_, why)) = OPEN.iter().find(|(name, _)| *name == attempt.name) {
            let mended = outcome.ran && !outcome.escaped();
            if mended {
                failures.push(format!("{} is held: take it off the list", attempt.name));
            } else {
                say(&format!("open: {}: {why}", attempt.name));
            }
            failures.extend(outcome.damage.iter().cloned());
            continue;
        }
        failures.extend(bad.map(|what| format!("{}: {what}", attempt.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn outcomes(confinement: Confinement, user: User, attempts: &[Attempt]) -> Vec<Outcome> {
    let only = std::env::vars().find(|(name, _)| name == "ESCAPES_ONLY");
    let mut house = House::open(&confinement, user).await;
    let mut outcomes = Vec::new();
    for attempt in attempts {
        let unwanted = |(_, only): &(_, String)| !attempt.name.contains(only);
        if only.as_ref().is_some_and(unwanted) || (attempt.needs_root() && !user.is_root()) {
            outcomes.push(Outcome::default());
            continue;
        }
        let outcome = house.run(attempt).await;
        say(&format!(
            "{} {:34} {outcome}",
            confinement.name, attempt.name
        ));
        outcomes.push(outcome);
    }
    house.close(attempts, &mut outcomes).await;
    outcomes
}
