//! A clock that a story can set: the wall clock of a server and of all that it starts.
//!
//! Their other clocks go on as they do.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::{native::compile, server::Builder};

/// The clock. It starts as the machine's.
#[derive(Debug)]
pub struct WallClock {
    directory: TempDir,
}

impl WallClock {
    /// Compiles the library.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("make a directory for the clock");
        let clock = Self { directory };
        clock.set(0);
        compile("wall_clock.c", &clock.library(), &["-shared", "-fPIC"]);
        clock
    }

    /// Has the server go by it, and its hosts and workers, which may read it.
    pub fn of(&self, builder: Builder) -> Builder {
        let granted = format!("ro:{}", self.directory.path().display());
        builder
            .flag("--plugin-paths", &granted)
            .variable("LD_PRELOAD", &self.library().display().to_string())
            .variable("STORY_WALL_CLOCK", &self.moved().display().to_string())
    }

    /// Sets it so many seconds before or behind the machine's.
    pub fn set(&self, seconds: i64) {
        // In place: it is mapped.
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(false);
        let file = file.open(self.moved()).expect("open the clock");
        let written = std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0);
        written.expect("set the clock");
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("wall_clock.so")
    }

    fn moved(&self) -> PathBuf {
        self.directory.path().join("moved")
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}
