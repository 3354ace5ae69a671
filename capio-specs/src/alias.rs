//! Aliases: names that stand for lists of names, other aliases among them.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::document::{Located, RawAlias};
use crate::error::{Problem, ProblemKind, Report};

/// The aliases of a document.
pub(crate) struct Aliases<'d> {
    groups: HashMap<&'d str, &'d [Located]>,
    expanded: HashMap<String, Rc<[String]>>,
}

impl<'d> Aliases<'d> {
    /// Takes the section; groups that are defined twice or by themselves are
    /// reported.
    pub(crate) fn new(section: &'d [RawAlias], report: &mut Report<'_>) -> Self {
        let mut aliases = Self {
            groups: HashMap::new(),
            expanded: HashMap::new(),
        };
        for alias in section {
            let group = alias.group.text.as_str();
            if aliases.groups.insert(group, &alias.files).is_some() {
                let message = format!("alias {group:?} is defined twice");
                let problem = Problem::new(ProblemKind::Alias, message);
                report.add(alias.group.at, problem.hint("put its files into one list"));
            }
        }
        for alias in section {
            let (group, at) = (alias.group.text.as_str(), alias.group.at);
            if aliases.reaches_itself(group) {
                let message = format!("alias {group:?} is defined by itself");
                let problem = Problem::new(ProblemKind::Alias, message);
                report.add(at, problem.hint("list its files, not the alias"));
            }
        }
        aliases
    }

    fn reaches_itself(&self, group: &str) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![group];
        while let Some(current) = open.pop() {
            for member in self.members(current) {
                if member.text == group {
                    return true;
                }
                if self.groups.contains_key(member.text.as_str()) && seen.insert(&member.text) {
                    open.push(&member.text);
                }
            }
        }
        false
    }

    fn members(&self, group: &str) -> &'d [Located] {
        self.groups.get(group).copied().unwrap_or_default()
    }

    /// The names that alias `name` stands for, each once; `None` when `name`
    /// is no alias.
    pub(crate) fn expand(&mut self, name: &str) -> Option<Rc<[String]>> {
        let (&group, _) = self.groups.get_key_value(name)?;
        if let Some(known) = self.expanded.get(name) {
            return Some(Rc::clone(known));
        }
        let names: Rc<[String]> = self.leaves(group).into();
        self.expanded.insert(name.to_owned(), Rc::clone(&names));
        Some(names)
    }

    /// Depth first, in the order of the lists, on a stack of our own: a chain
    /// of aliases may be as long as the document.
    fn leaves(&self, group: &'d str) -> Vec<String> {
        let mut leaves = Vec::new();
        let mut seen = HashSet::from([group]);
        let mut open = vec![self.members(group).iter()];
        while let Some(members) = open.last_mut() {
            let Some(member) = members.next() else {
                open.pop();
                continue;
            };
            let name = member.text.as_str();
            if seen.insert(name) {
                match self.groups.get(name) {
                    Some(members) => open.push(members.iter()),
                    None => leaves.push(name.to_owned()),
                }
            }
        }
        leaves
    }
}
