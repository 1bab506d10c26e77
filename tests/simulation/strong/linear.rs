//! From commands to histories that the judges of linearizability read, key by key.

use coterie::node::request::RequestError;
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::{Action, Expect};
use coterie::types::Key;

use super::history::{Asked, Command, Fate, Told};
use super::keys::is_list;
use crate::linearizability::appends::{self, ListCall};
use crate::linearizability::history::{Call, Operation, Swap, Value};

/// Operations on registers and on lists.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) registers: Vec<Operation<Call>>,
    pub(crate) lists: Vec<Operation<ListCall>>,
    /// Values of lists that are none.
    pub(crate) malformed: Vec<String>,
}

impl Histories {
    /// Everything that must have one order: all but stale reads.
    pub(crate) fn of(commands: &[Command]) -> Histories {
        let mut histories = Histories::default();
        for command in commands {
            let Some(fate) = Some(command.fate()).filter(|fate| *fate != Fate::Nothing) else {
                continue;
            };
            match &command.asked {
                Asked::Read(_, Consistency::Stale { .. }) => {}
                Asked::Read(key, _) => {
                    if let Fate::Answered(place, Told::Read(value)) = fate {
                        histories.read(command, key, value, place.number);
                    }
                }
                Asked::Write(steps) => histories.write(command, steps, &fate),
            }
        }
        histories
    }

    fn write(&mut self, command: &Command, steps: &[(Key, Action)], fate: &Fate) {
        match fate {
            Fate::Answered(
                place,
                Told::Refused(RequestError::ConditionFailed { step, current }),
            ) => {
                // Each key occurs once in a command, so this is what it held before.
                let Some((key, _)) = steps.get(*step) else { return };
                let value = current.as_ref().map(|current| current.value.clone());
                self.read(command, key, value.flatten(), place.number);
            }
            Fate::Answered(place, _) => {
                for (key, action) in steps {
                    self.step(command, key, action, Some(place.number));
                }
            }
            Fate::Unknown => {
                for (key, action) in steps {
                    self.step(command, key, action, None);
                }
            }
            Fate::Nothing => {}
        }
    }

    fn step(&mut self, command: &Command, key: &Key, action: &Action, returned: Option<u64>) {
        let call = match action {
            Action::Append(element) => return self.append(command, key, element, returned),
            Action::Put(value) => Call::Write(value.clone()),
            Action::Delete => Call::Delete,
            Action::CompareAndSet { expect, then } => Call::CompareAndSet {
                expect: value_of(expect),
                new: then.clone(),
                outcome: Swap::Succeeded,
            },
            Action::Check(expect) if returned.is_some() => Call::Read(value_of(expect)),
            Action::Check(_) => return,
        };
        self.registers.push(operation(command, key, call, returned));
    }

    fn append(&mut self, command: &Command, key: &Key, element: &Value, returned: Option<u64>) {
        match appends::decoded(element).as_deref() {
            Ok([element]) => {
                let call = ListCall::Append(*element);
                self.lists.push(operation(command, key, call, returned));
            }
            other => self.malformed.push(format!("{key}: an element like {other:?}")),
        }
    }

    fn read(&mut self, command: &Command, key: &Key, value: Option<Value>, returned: u64) {
        if !is_list(key) {
            let call = Call::Read(value);
            return self.registers.push(operation(command, key, call, Some(returned)));
        }
        match appends::decoded(&value.unwrap_or_default()) {
            Ok(elements) => {
                let call = ListCall::Read(elements);
                self.lists.push(operation(command, key, call, Some(returned)));
            }
            Err(problem) => self.malformed.push(format!("{key}: {problem}")),
        }
    }
}

fn value_of(expect: &Expect) -> Option<Value> {
    match expect {
        Expect::Value(value) => Some(value.clone()),
        Expect::Absent => None,
        other => unreachable!("no client of the simulation expects {other:?}"),
    }
}

fn operation<C>(command: &Command, key: &Key, call: C, returned: Option<u64>) -> Operation<C> {
    let (client, invoked) = (command.client as u64, command.invoked().number);
    Operation { client, key: key.to_string(), call, invoked, returned }
}
