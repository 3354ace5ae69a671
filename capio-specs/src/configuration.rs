//! The TOML file that `configuration` names (CAPIO-CL 1.1).

use toml::{Table, Value};

/// Runtime parameters of the reference's monitors. What the file leaves out
/// is `None`; keys we do not know are kept for a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Absolute path of the file.
    pub path: String,
    /// Table `monitor`.
    pub monitor: Monitor,
    /// Dotted keys that nothing reads.
    pub unknown: Vec<String>,
}

/// Table `monitor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// Table `monitor.filesystem`.
    pub filesystem: Endpoint,
    /// Table `monitor.mcast`.
    pub mcast: Multicast,
}

/// Table `monitor.mcast`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multicast {
    /// The table's own keys.
    pub own: Endpoint,
    /// Table `monitor.mcast.commit`.
    pub commit: Endpoint,
    /// Table `monitor.mcast.homenode`.
    pub homenode: Endpoint,
}

/// The keys that each table of `monitor` may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is in use.
    pub enabled: Option<bool>,
    /// Multicast address.
    pub ip: Option<String>,
    /// Port, 1 to 65535.
    pub port: Option<u16>,
    /// Pause between messages in milliseconds.
    pub delay_ms: Option<u64>,
}

impl Configuration {
    /// Parses the text of the file at `path`; the error says where in that
    /// file.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let table: Table = text
            .parse()
            .map_err(|error| toml_error(path, text, &error))?;
        let mut configuration = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        configuration
            .take("", &table)
            .map_err(|message| format!("{path}: {message}"))?;
        Ok(configuration)
    }

    fn take(&mut self, prefix: &str, table: &Table) -> Result<(), String> {
        for (key, value) in table {
            let dotted = format!("{prefix}{key}");
            match value {
                Value::Table(inner) => self.take(&format!("{dotted}."), inner)?,
                value => self.set(&dotted, value)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, dotted: &str, value: &Value) -> Result<(), String> {
        let (table, key) = dotted.rsplit_once('.').unwrap_or(("", dotted));
        let monitor = &mut self.monitor;
        let endpoint = match table {
            "monitor.filesystem" => &mut monitor.filesystem,
            "monitor.mcast" => &mut monitor.mcast.own,
            "monitor.mcast.commit" => &mut monitor.mcast.commit,
            "monitor.mcast.homenode" => &mut monitor.mcast.homenode,
            _ => {
                self.unknown.push(dotted.to_owned());
                return Ok(());
            }
        };
        // The reference keeps all values as text, so files quote them or not.
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let wrong = |expected: &str| format!("{dotted} is {text:?}: expected {expected}");
        match key {
            "enabled" => {
                endpoint.enabled = Some(truth(&text).ok_or_else(|| wrong("true or false"))?)
            }
            "ip" => {
                let address: Result<std::net::IpAddr, _> = text.parse();
                address.map_err(|_| wrong("an IP address, say \"224.224.224.1\""))?;
                endpoint.ip = Some(text);
            }
            "port" => {
                let port = text.parse().ok().filter(|port| *port > 0);
                endpoint.port = Some(port.ok_or_else(|| wrong("a port, 1 to 65535"))?);
            }
            "delay_ms" => {
                let delay = text
                    .parse()
                    .map_err(|_| wrong("milliseconds, a whole number"))?;
                endpoint.delay_ms = Some(delay);
            }
            _ => self.unknown.push(dotted.to_owned()),
        }
        Ok(())
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn toml_error(path: &str, text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let position = crate::position::Lines::new(text).position(at);
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    format!("{path}:{}:{}: {message}", position.line, position.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_tables_are_read_quoted_or_not() {
        let text = "[monitor.filesystem]\nenabled = false\n\
            [monitor.mcast]\nenabled = \"true\"\ndelay_ms = 300\n\
            [monitor.mcast.commit]\nip = \"224.224.224.1\"\nport = 12345\n\
            [monitor.mcast.homenode]\nip = \"224.224.224.2\"\nport = \"12346\"\n\
            [dynamic_api]\nport = 1\n";
        let read = Configuration::parse("c.toml", text).expect("valid");
        assert_eq!(read.monitor.filesystem.enabled, Some(false));
        let mcast = &read.monitor.mcast;
        assert_eq!(
            (mcast.own.enabled, mcast.own.delay_ms),
            (Some(true), Some(300))
        );
        assert_eq!(mcast.commit.ip.as_deref(), Some("224.224.224.1"));
        assert_eq!(mcast.homenode.port, Some(12346));
        assert_eq!(read.unknown, ["dynamic_api.port"]);
    }

    #[test]
    fn a_wrong_value_or_line_is_named() {
        let error = Configuration::parse("c.toml", "[monitor\n").expect_err("no table");
        assert!(error.starts_with("c.toml:1:"), "{error}");
        let error = Configuration::parse("c.toml", "monitor.mcast.commit.port = 0");
        let error = error.expect_err("no port");
        assert!(
            error.contains("monitor.mcast.commit.port") && error.contains("65535"),
            "{error}"
        );
    }
}
