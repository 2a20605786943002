//! How does a table of system calls become a program for the kernel?
//!
//! One program, because each call has its own answer: `seccompiler` knows one answer per
//! program, no user notification, and lets x32 numbers through (see docs/security.md).

use super::calls::{Arg, Call, Rule};

/// One instruction of classic BPF, as the kernel knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions to skip if the comparison holds.
    pub(super) then: u8,
    /// How many if it does not.
    pub(super) otherwise: u8,
    pub(super) k: u32,
}

/// Load the 32-bit word at offset k of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// And the loaded word with k.
pub(super) const AND: u16 = 0x54;
/// Is it k?
pub(super) const EQUAL: u16 = 0x15;
/// Is it at least k?
pub(super) const AT_LEAST: u16 = 0x35;
/// The answer is k.
pub(super) const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The architecture as the kernel's audit subsystem names it.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xC000_00B7;

/// The bit in the number of a call for the x32 interface.
pub(super) const X32: u32 = 0x4000_0000;

/// Where the own process's id will stand. No process can have this one.
pub(super) const OWN_PID: u32 = i32::MAX.cast_unsigned();

/// The answer for a failed call. Number 0 makes it look as if it had worked.
pub(super) const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

const fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD,
        then: 0,
        otherwise: 0,
        k: offset,
    }
}

const fn answer(action: u32) -> Instruction {
    Instruction {
        code: RETURN,
        then: 0,
        otherwise: 0,
        k: action,
    }
}

const fn jump(code: u16, k: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction {
        code,
        then,
        otherwise,
        k,
    }
}

/// Kills whoever calls through another interface, whose numbers mean other calls.
fn guard() -> Vec<Instruction> {
    let mut guard = vec![
        load(ARCHITECTURE),
        jump(EQUAL, NATIVE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        guard.push(jump(AT_LEAST, X32, 0, 1));
        guard.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    }
    guard
}

/// What is not in the table does not exist.
pub(super) fn allow_list<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Vec<Instruction> {
    let mut program = guard();
    let (plain, checked): (Vec<&Call>, Vec<&Call>) = calls
        .into_iter()
        .partition(|call| matches!(call.rule, Rule::Allow));
    // The kernel remembers calls that are always allowed, and runs the program for the
    // others only: those come first.
    for call in checked.into_iter().chain(plain) {
        let body = body(call.rule);
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        program.push(jump(EQUAL, number(call), 0, skip));
        program.extend(body);
    }
    program.push(answer(errno(libc::ENOSYS)));
    program
}

/// Hands these calls to whoever holds the listener.
pub(super) fn hand_over(calls: &[Call]) -> Vec<Instruction> {
    let mut program = guard();
    for call in calls {
        program.push(jump(EQUAL, number(call), 0, 1));
        program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn number(call: &Call) -> u32 {
    // Numbers of calls are small and positive.
    u32::try_from(call.number).unwrap_or(u32::MAX)
}

fn body(rule: Rule) -> Vec<Instruction> {
    match rule {
        Rule::Allow => vec![answer(libc::SECCOMP_RET_ALLOW)],
        Rule::Pretend => vec![answer(errno(0))],
        Rule::Refuse(number) => vec![answer(errno(number))],
        Rule::If(alternatives, number) => {
            let mut body = Vec::new();
            for all in alternatives {
                body.extend(alternative(all));
            }
            body.push(answer(errno(number)));
            body
        }
    }
}

/// Allows if all hold; goes on behind itself if not.
fn alternative(all: &[Arg]) -> Vec<Instruction> {
    // Backwards, since each jumps over those behind it.
    let mut code = vec![answer(libc::SECCOMP_RET_ALLOW)];
    for arg in all.iter().rev() {
        let behind = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut check = vec![load(ARGUMENTS + 8 * u32::from(arg.index))];
        if arg.mask != u32::MAX {
            check.push(Instruction {
                code: AND,
                then: 0,
                otherwise: 0,
                k: arg.mask,
            });
        }
        if arg.is {
            check.push(jump(EQUAL, arg.value, 0, behind));
        } else {
            check.push(jump(EQUAL, arg.value, behind, 0));
        }
        check.append(&mut code);
        code = check;
    }
    code
}

/// The program as the kernel reads it: `struct sock_filter`s of this machine.
pub(super) fn bytes(program: &[Instruction]) -> Vec<u8> {
    let instruction = |instruction: &Instruction| {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&instruction.code.to_ne_bytes());
        bytes[2] = instruction.then;
        bytes[3] = instruction.otherwise;
        bytes[4..].copy_from_slice(&instruction.k.to_ne_bytes());
        bytes
    };
    program.iter().flat_map(instruction).collect()
}

/// Puts the process's own id where the table says so.
pub(super) fn set_own_pid(bytes: &mut [u8], pid: u32) {
    for instruction in bytes.chunks_exact_mut(8) {
        if instruction[..2] == EQUAL.to_ne_bytes() && instruction[4..] == OWN_PID.to_ne_bytes() {
            instruction[4..].copy_from_slice(&pid.to_ne_bytes());
        }
    }
}
