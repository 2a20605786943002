//! What may a trigger's plugin do beyond what every plugin may?

use outrigger_sandbox::Network;
use serde::{Deserialize, Serialize};

/// What the creator of a trigger grants its plugin. How it is enforced is the sandbox's.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Grants {
    /// What it may connect to; the server's default if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Whether it may start processes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub subprocesses: bool,
}

impl Grants {
    /// Whether nothing particular is granted.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_kept_as_they_are_written() {
        let grants = Grants {
            network: Some("api.example.com:443".parse().unwrap()),
            subprocesses: true,
        };
        let json = serde_json::to_string(&grants).unwrap();
        let expected = r#"{"network":"api.example.com:443","subprocesses":true}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Grants>(&json).unwrap(), grants);
        let old: Grants = serde_json::from_str("{}").unwrap();
        assert!(old.is_default());
    }
}
